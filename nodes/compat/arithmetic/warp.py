"""Gaussian blur and elastic warping with the sizes and draws of torchvision's transforms, from a given generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def blur(images: Tensor, size: int, sigma: float | None = None) -> Tensor:
    """(n, c, H, W) under a Gaussian of `size` (odd) pixels; the border is mirrored. sigma: 0.15 size + 0.35 if None."""
    kernel = _gaussian(size, 0.15 * size + 0.35 if sigma is None else sigma).to(images)
    channels, half = images.shape[1], size // 2
    padded = F.pad(images, [half] * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)


def _gaussian(size: int, sigma: float) -> Tensor:
    half = (size - 1) / (2 * math.sqrt(2))
    line = torch.softmax(-((torch.linspace(-half, half, size) / sigma) ** 2), 0)
    return line[:, None] * line


def warp(images: Tensor, alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(n, c, H, W), each pixel fetched from up to about `alpha` half pixels away, smoothly over `sigma` pixels.

    One field of displacements for all pictures. Outside is black; the edge fades to it twice, as torchvision's does.
    """
    height, width = images.shape[-2:]
    fields = [_field(side, (height, width), alpha, sigma, generator) for side in (height, width)]
    grid = (_identity(height, width) + torch.cat(fields, 1).movedim(1, -1)).expand(len(images), -1, -1, -1)
    white = torch.ones_like(images[:, :1])
    moved = F.grid_sample(torch.cat((images, white), 1), grid, mode="bilinear", align_corners=False)
    return moved[:, :-1] * moved[:, -1:]


def _field(side: int, shape: tuple[int, int], alpha: float, sigma: float, generator: Generator) -> Tensor:
    """(1, 1, H, W) of displacements in units of grid_sample."""
    field = torch.rand(1, 1, *shape, generator=generator) * 2 - 1
    if sigma > 0:
        field = blur(field, int(8 * sigma + 1) | 1, sigma)
    return field * alpha / side


def _identity(height: int, width: int) -> Tensor:
    """(1, H, W, 2) of (x, y): grid_sample's own places."""
    y, x = (torch.linspace((1 - side) / side, (side - 1) / side, side) for side in (height, width))
    return torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), -1)[None]
