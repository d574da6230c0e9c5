"""Parts of pictures: centred boxes, squares at a position, tiles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ....ipadapter_core.errors import SettingError
from ....ipadapter_core.pictures.preprocessing import Position
from ....ipadapter_core.values import refuse_strip

PAD = "pad"
POSITIONS = (*(position.value for position in Position), PAD)


def planes(images: Tensor) -> Tensor:
    """(n, H, W, c) -> (n, c, H, W)."""
    return images.movedim(-1, 1)


def pixels(images: Tensor) -> Tensor:
    """(n, c, H, W) -> (n, H, W, c)."""
    return images.movedim(1, -1)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """(n, c, H, W) -> (n, c, height, width), bicubic with antialias; values may leave their range."""
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True, align_corners=False)


def centre_box(images: Tensor, height: int, width: int) -> Tensor:
    """The middle of (n, c, H, W). An odd rest is split as by torchvision's CenterCrop: halves round to even."""
    spare_y, spare_x = (
        max(0, side - wanted) for side, wanted in zip(images.shape[-2:], (height, width), strict=True)
    )
    top, left = round(spare_y / 2), round(spare_x / 2)
    return images[..., top : top + height, left : left + width]


def centre_square(images: Tensor) -> Tensor:
    """The middle square of (n, c, H, W)."""
    side = min(images.shape[-2:])
    return centre_box(images, side, side)


def square(images: Tensor, position: str) -> Tensor:
    """Pictures (n, H, W, c) cut to a square at one of POSITIONS, or padded with black.

    Odd rests are rounded down on both sides, so that 'pad' may be one pixel short of a square, as in the de-facto pack.
    Raises SettingError for an unknown position.
    """
    if position not in POSITIONS:
        raise SettingError(f"unknown crop position '{position}'; choose one of: {', '.join(POSITIONS)}.")
    height, width = images.shape[1:3]
    side = min(height, width)
    if position == PAD:
        refuse_strip(images, "the image")
        y, x = (max(0, other - one) // 2 for one, other in ((height, width), (width, height)))
        return F.pad(images, (0, 0, x, x, y, y))
    spare_y, spare_x = height - side, width - side
    top = {"top": 0, "bottom": spare_y}.get(position, spare_y // 2)
    left = {"left": 0, "right": spare_x}.get(position, spare_x // 2)
    return images[:, top : top + side, left : left + side]


def cut(images: Tensor, boxes: list[tuple[int, int, int, int]]) -> Tensor:
    """Boxes (top, left, bottom, right) of one size, of pictures (n, H, W, c): (boxes · n, h, w, c), box by box."""
    return torch.cat([images[:, top:bottom, left:right] for top, left, bottom, right in boxes])
