"""A reference in tiles, each with the mask of the part of the generated picture that it steers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ....ipadapter_core.errors import MismatchError
from ....ipadapter_core.pictures.preprocessing import rgb
from ....ipadapter_core.values import masks
from .crop import centre_box, centre_square, cut, pixels, planes, resize
from .resampling import resize_8bit
from .sharpening import sharpen

TILE = 256
MOST_TILES = 32
# height / width, both exclusive: such pictures get two tiles a side
_NEARLY_SQUARE = (0.75, 1.33)
# tiles of a side in the de-facto pack
_LONGEST = 4
Box = tuple[int, int, int, int]


def tiled(
    images: Tensor, mask: Tensor | None = None, sharpening: float = 0.0, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Pictures (n, H, W, c) in 0..1 -> tiles (m · n, 256, 256, 3), tile by tile, and masks (m · k, h, w).

    Any aspect: the short side is one tile, of nearly square pictures two, the long side as many as it takes,
    overlapping evenly. mask (k, H', W'), all ones if None: each tile's share of it, 0 outside the tile; where tiles
    overlap they share, so that all masks add up to `mask`.
    exact: the de-facto pack's, which cuts nearly square pictures to squares and long ones to four tiles, and whose
    masks count overlaps twice.
    """
    images = rgb(images)
    _refuse_many(images)
    height, width = images.shape[1:3]
    mask = resize(_mask_like(mask, images), height, width)
    if exact and _nearly_square(height, width):
        images, mask = pixels(centre_square(planes(images))), centre_square(mask)
    canvas = _canvas(*images.shape[1:3])
    images, mask = resize_8bit(images, *canvas), resize(mask, *canvas)
    if exact:
        box = [min(side, _LONGEST * TILE) for side in canvas]
        images, mask = pixels(centre_box(planes(images), *box)), centre_box(mask, *box)
    boxes = _boxes(*images.shape[1:3])
    return cut(sharpen(images, sharpening), boxes), _masks(mask[:, 0], boxes, share=not exact)


def _refuse_many(images: Tensor) -> None:
    """Each tile is encoded and has its own mask, so that time and memory grow with the square of their number."""
    height, width = images.shape[1:3]
    if max(height, width) > MOST_TILES * min(height, width):
        raise MismatchError(
            f"a picture of {width} x {height} pixels would be cut into more than {MOST_TILES} tiles. Cut out the part that "
            "matters first."
        )


def _mask_like(mask: Tensor | None, images: Tensor) -> Tensor:
    """(k, 1, H', W') in fp32."""
    if mask is None:
        return torch.ones(1, 1, *images.shape[1:3])
    return masks(mask, "the attention mask")[:, None].cpu()


def _nearly_square(height: int, width: int) -> bool:
    low, high = _NEARLY_SQUARE
    return low < height / width < high


def _canvas(height: int, width: int) -> tuple[int, int]:
    """The size at which a picture is cut into tiles."""
    short = 2 * TILE if _nearly_square(height, width) else TILE
    if height < width:
        return short, int(short * (width / height))
    return int(short * (height / width)), short


def _boxes(height: int, width: int) -> list[Box]:
    """(top, left, bottom, right) row by row."""
    return [(y, x, y + TILE, x + TILE) for y in _starts(height) for x in _starts(width)]


def _starts(side: int) -> list[int]:
    """Starts of the tiles that cover a side and overlap evenly; the last one ends where the side does."""
    count = math.ceil(side / TILE)
    overlap = (count * TILE - side) / (count - 1) if count > 1 else 0.0
    return [int(n * (TILE - overlap)) for n in range(count)]


def _masks(mask: Tensor, boxes: list[Box], share: bool) -> Tensor:
    """(k, h, w) -> (boxes · k, h, w), box by box."""
    tiles_here = torch.zeros(mask.shape[1:])
    for top, left, bottom, right in boxes:
        tiles_here[top:bottom, left:right] += 1.0
    part = 1 / tiles_here if share else torch.ones_like(tiles_here)
    # Written inside the tiles only: pages that stay 0 take no memory.
    made = torch.zeros(len(boxes), *mask.shape)
    for own, (top, left, bottom, right) in zip(made, boxes, strict=True):
        own[:, top:bottom, left:right] = part[top:bottom, left:right] * mask[:, top:bottom, left:right]
    return made.flatten(0, 1)
