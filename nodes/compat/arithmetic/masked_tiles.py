"""Tiles and masks of the first generation's 'masked tiles' (until 2024-02)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ....ipadapter_core.errors import SettingError
from ....ipadapter_core.pictures.preprocessing import rgb
from .crop import pixels, planes

TILE = 224
# tiles along the long side
MOST_ALONG = 48
# a rest of so many pixels gets a tile of its own
_LEAST_REST = TILE // 4
Span = tuple[int, int]


def masked_tiles(
    image: Tensor, short_side: int, weight: float, exact: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The first of pictures (n, H, W, c) -> tiles (m, 224, 224, 3) and the mask (h, w) of each, m of them.

    short_side: tiles along it, 1 or more. weight: of each tile's mask where there are several rows and columns; the
    tiles of a single row or column then come first at 1, so that the whole picture is encoded too, with details on top.
    exact: a rest too small for a tile is not cut off at both ends, but makes tiles longer, and they are squashed later.
    """
    if short_side < 1:
        raise SettingError(f"short_side_tiles is {short_side}; use 1 or more.")
    image = planes(rgb(image[:1])).float()
    _refuse_many(image, short_side)
    canvas = _canvas(image, short_side)
    rows, columns = (_spans(side, exact) for side in canvas.shape[-2:])
    several = len(rows) > 1 and len(columns) > 1
    tiles, masks = _cut(canvas, rows, columns, weight if several else 1.0)
    if not several:
        return pixels(tiles), masks
    first, coarse = masked_tiles(pixels(canvas), 1, 1.0, exact)
    first = _resize(planes(first), *tiles.shape[-2:])
    large = [_resize(mask[None, None], *canvas.shape[-2:])[0, 0] for mask in coarse]
    return pixels(torch.cat((first, tiles))), large + masks


def _refuse_many(image: Tensor, short_side: int) -> None:
    """Each tile is encoded and becomes a prompt of its own; those that show the whole hold a mask of the canvas each."""
    short, long = sorted(image.shape[-2:])
    count = math.ceil(short_side * long / short)
    if count > MOST_ALONG:
        raise SettingError(
            f"short_side_tiles {short_side} would cut {count} tiles along the long side of a picture of {image.shape[-1]} x "
            f"{image.shape[-2]} pixels; at most {MOST_ALONG} are cut. Use fewer, or a part of the picture."
        )


def _canvas(image: Tensor, short_side: int) -> Tensor:
    """(1, 3, H, W) with a short side of so many tiles."""
    height, width = image.shape[-2:]
    side = short_side * TILE
    if height < width:
        return _resize(image, side, int(width * (side / height)))
    return _resize(image, int(height * (side / width)), side)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    """(n, c, H, W) -> (n, c, height, width), bicubic without antialias, as the first generation did everywhere."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bicubic", align_corners=False)


def _spans(side: int, exact: bool) -> list[Span]:
    """(start, end) of tiles along a side. A large rest gets one more tile, flush with the end; a small one is left out."""
    count, rest = divmod(side, TILE)
    if rest >= _LEAST_REST:
        return [(n * TILE, (n + 1) * TILE) for n in range(count)] + [(side - TILE, side)]
    offset = rest // 2
    return [(n * TILE + offset, (n + 1) * TILE + offset * (2 if exact else 1)) for n in range(count)]


def _cut(canvas: Tensor, rows: list[Span], columns: list[Span], weight: float) -> tuple[Tensor, list[Tensor]]:
    boxes = [(y, x) for y in rows for x in columns]
    parts = [canvas[..., top:bottom, left:right] for (top, bottom), (left, right) in boxes]
    sheets: dict[tuple[int, int], Tensor] = {}
    return torch.cat(parts), [_mask(sheets, canvas.shape[-2:], box, weight) for box in boxes]


def _mask(
    sheets: dict[tuple[int, int], Tensor], size: torch.Size, box: tuple[Span, Span], weight: float
) -> Tensor:
    """(h, w): `weight` in the box, 0 elsewhere, as a window on a sheet that all tiles of this size share.

    So that masks take the memory of one or two sheets, however many tiles there are.
    """
    (top, bottom), (left, right) = box
    sides = bottom - top, right - left
    if sides not in sheets:
        spare = [whole - side for whole, side in zip(size, sides, strict=True)]
        around = (spare[1], spare[1], spare[0], spare[0])
        sheets[sides] = F.pad(torch.full(sides, weight), around)
    y, x = size[0] - bottom, size[1] - right
    return sheets[sides][y : y + size[0], x : x + size[1]]
