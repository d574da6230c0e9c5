"""ClipVision Enhancer: features of a picture and of its tiles, merged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ....ipadapter_core.errors import MismatchError
from ....ipadapter_core.pictures.preprocessing import rgb

MOST_TILES = 16


@dataclass(frozen=True)
class Enhancement:
    """tiles: on each side of a picture, 1 for none. ratio: weight of the features of the whole picture."""

    tiles: int = 2
    ratio: float = 1.0


def enhanced(
    images: Tensor,
    encode: Callable[[Tensor], Tensor],
    enhancement: Enhancement,
    unfold: bool = False,
    exact: bool = False,
) -> Tensor:
    """Features of pictures (n, H, W, c) and of their tiles, by `encode`: (n, d), or (n, 1 + s², d) with a class token.

    Several pictures, or one that is unfolded: ratio · whole + (1 - ratio) · tiles. Of one picture alone two rows,
    ratio · whole and tiles, which become tokens side by side.
    exact: as the de-facto pack, which merges pooled vectors as if they were pictures, and gives two rows for one
    picture even where rows are frames.
    """
    whole, grid = encode(images), min(enhancement.tiles, MOST_TILES)
    if grid <= 1:
        return whole
    merge = merge_grids if whole.ndim == 3 else merge_folded if exact else merge_pooled
    parts = merge(encode(tiles(images, grid)), grid)
    if len(whole) == 1 and (exact or not unfold):
        return torch.cat((whole * enhancement.ratio, parts))
    return whole * enhancement.ratio + parts * (1 - enhancement.ratio)


def tiles(images: Tensor, grid: int) -> Tensor:
    """(n, H, W, c) -> (n · grid², H // grid, W // grid, 3), each picture row by row; the rest is cut off."""
    images = rgb(images)
    height, width = (side // grid for side in images.shape[1:3])
    if 0 in (height, width):
        raise MismatchError(
            f"a picture of {images.shape[2]} x {images.shape[1]} pixels has no {grid} x {grid} tiles; use fewer."
        )
    even = images[:, : height * grid, : width * grid]
    return rearrange(even, "n (y h) (x w) c -> (n y x) h w c", y=grid, x=grid)


def merge_grids(states: Tensor, grid: int) -> Tensor:
    """(n · grid², 1 + s², d) -> (n, 1 + s², d): class tokens' mean; patches laid out as one picture, pooled to s x s."""
    side = math.isqrt(states.shape[1] - 1)
    if side * side != states.shape[1] - 1:
        raise MismatchError(
            f"the encoder gives {states.shape[1]} tokens, which are not a class token and a square of patches; tiles "
            "cannot be merged. Set enhance_tiles to 1."
        )
    classes = rearrange(states[:, :1], "(n g) t d -> n g t d", g=grid * grid).mean(1)
    patches = rearrange(states[:, 1:], "(n y x) (h w) d -> n d (y h) (x w)", y=grid, x=grid, h=side, w=side)
    pooled = F.avg_pool2d(patches, grid)
    return torch.cat((classes, rearrange(pooled, "n d h w -> n (h w) d")), 1)


def merge_pooled(vectors: Tensor, grid: int) -> Tensor:
    """(n · grid², d) -> (n, d): the mean of a picture's tiles."""
    return rearrange(vectors, "(n g) d -> n g d", g=grid * grid).mean(1)


def merge_folded(vectors: Tensor, grid: int) -> Tensor:
    """(n · grid², d) -> (n, d) as the de-facto pack: each vector folded to a square, laid out and pooled as a picture."""
    side = math.isqrt(vectors.shape[-1])
    if side * side != vectors.shape[-1]:
        raise MismatchError(
            f"vectors of width {vectors.shape[-1]} do not fold to a square, as exact legacy results need. Switch these off "
            "in the settings, or use an adapter that reads the encoder's grid (plus)."
        )
    folded = rearrange(vectors, "(n y x) (h w) -> n 1 (y h) (x w)", y=grid, x=grid, h=side, w=side)
    return F.avg_pool2d(folded, grid).flatten(1)
