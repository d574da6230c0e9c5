"""Gaussian blur and elastic warping as the de-facto pack does them, by torchvision, from a given generator.

torchvision comes with every host; it is imported when it is used, since its binary part may not load beside every torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor


def blur(images: Tensor, size: int, sigma: float | None = None) -> Tensor:
    """(n, c, H, W) under a Gaussian of `size` (odd) pixels; the border is mirrored. sigma: 0.15 size + 0.35 if None."""
    return _functional().gaussian_blur(images, [size, size], None if sigma is None else [sigma, sigma])


def warp(images: Tensor, alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(n, c, H, W), each pixel fetched from up to about `alpha` half pixels away, smoothly over `sigma` pixels.

    One field of displacements for all pictures, drawn as torchvision's ElasticTransform draws it. Outside is black.
    """
    height, width = images.shape[-2:]
    fields = [_field(side, (height, width), alpha, sigma, generator) for side in (height, width)]
    return _functional().elastic(images, torch.cat(fields, 1).movedim(1, -1), fill=[0.0])


def _field(side: int, shape: tuple[int, int], alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(1, 1, H, W) of displacements in units of grid_sample."""
    field = torch.rand(1, 1, *shape, generator=generator) * 2 - 1
    if sigma > 0:
        field = blur(field, int(8 * sigma + 1) | 1, sigma)
    return field * alpha / side


def _functional() -> Any:
    from torchvision.transforms.v2 import functional

    return functional
