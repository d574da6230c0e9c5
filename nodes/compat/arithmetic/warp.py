"""Gaussian blur and elastic transform of torchvision, as the de-facto pack uses them, with a given generator.

ComfyUI requires torchvision. It is imported at first use: it takes seconds, and its binary part may not load.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor


def gaussian_blur(images: Tensor, size: int, sigma: float | None = None) -> Tensor:
    """(n, c, H, W) under a Gaussian of `size` (odd) pixels; the border is mirrored. sigma: 0.15 size + 0.35 if None."""
    return _functional().gaussian_blur(images, [size, size], None if sigma is None else [sigma, sigma])


def elastic_transform(images: Tensor, alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(n, c, H, W), each pixel fetched from up to about `alpha` half pixels away, smoothly over `sigma` pixels.

    One field of displacements for all pictures, drawn as by torchvision's ElasticTransform. Outside is black.
    """
    height, width = images.shape[-2:]
    fields = [_field(side, (height, width), alpha, sigma, generator) for side in (height, width)]
    return _functional().elastic(images, torch.cat(fields, 1).movedim(1, -1), fill=[0.0])


def _field(side: int, shape: tuple[int, int], alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(1, 1, H, W) of displacements in units of grid_sample."""
    field = torch.rand(1, 1, *shape, generator=generator) * 2 - 1
    if sigma > 0:
        field = gaussian_blur(field, int(8 * sigma + 1) | 1, sigma)
    return field * alpha / side


def _functional() -> Any:
    from torchvision.transforms.v2 import functional

    return functional
