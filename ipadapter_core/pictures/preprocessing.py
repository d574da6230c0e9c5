"""Preprocessing: reference pictures -> the pixel values that a CLIP vision encoder reads, as in its training."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MismatchError
from ..values import masks, pictures


class Fit(str, Enum):
    """How a picture is fitted to the square that an encoder reads.

    CROP: the short side to size, the rest is cut off at `position`. PAD: the long side to size, the rest is the encoder's
    mean colour. SQUASH: both sides to size.
    """

    CROP = "crop"
    PAD = "pad"
    SQUASH = "squash"


class Position(str, Enum):
    """Which part of a picture a crop keeps."""

    CENTER = "center"
    TOP = "top"
    BOTTOM = "bottom"
    LEFT = "left"
    RIGHT = "right"


def pixel_values(
    images: Tensor,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    fit: Fit = Fit.CROP,
    position: Position = Position.CENTER,
    mask: Tensor | None = None,
) -> Tensor:
    """Images (n, H, W, 1/3/4) in 0..1 -> (n, 3, size, size), normalised.

    mask (1 or n, H', W'): where it is 0 the encoder sees its mean colour, which is exactly 0. Sizes are rounded down
    and pixels to 8 bits as in transformers' CLIPImageProcessor. Raises MismatchError for images or a mask of another
    shape, or another number of masks.
    """
    images = rgb(images).movedim(-1, 1).float()
    fitted = _fit(images, size, fit, position)
    values = ((fitted * 255).round().clamp(0, 255) / 255 - _channels(mean, images)) / _channels(std, images)
    if mask is not None:
        values = values * _fit(_mask_like(mask, images), size, fit, position).clamp(0, 1)
    return _pad(values, size)


def rgb(images: Tensor) -> Tensor:
    """(n, H, W, 1, 3 or 4) -> (n, H, W, 3) in fp32. Raises MismatchError for any other shape."""
    return pictures(images, "the image")


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


def _mask_like(mask: Tensor, images: Tensor) -> Tensor:
    mask = masks(mask, "the reference mask")
    if mask.shape[0] not in (1, images.shape[0]):
        raise MismatchError(
            f"{mask.shape[0]} reference masks came for {images.shape[0]} images; connect one mask, or one for each."
        )
    mask = mask[:, None].to(images)
    return F.interpolate(mask, size=images.shape[-2:], mode="bilinear", antialias=True)


def _fit(images: Tensor, size: int, fit: Fit, position: Position) -> Tensor:
    """(n, c, H, W) -> at most (n, c, size, size)."""
    height, width = images.shape[-2:]
    if fit is Fit.SQUASH:
        return _resize(images, size, size)
    basis = min(height, width) if fit is Fit.CROP else max(height, width)
    # in whole numbers: a rounded scale would lose a pixel of 444 x 666 at 224
    target = [max(1, size * side // basis) for side in (height, width)]
    images = _resize(images, *target)
    return _crop(images, size, position) if fit is Fit.CROP else images


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True)


def _crop(images: Tensor, size: int, position: Position) -> Tensor:
    spare_y, spare_x = images.shape[-2] - size, images.shape[-1] - size
    top = {Position.TOP: 0, Position.BOTTOM: spare_y}.get(position, spare_y // 2)
    left = {Position.LEFT: 0, Position.RIGHT: spare_x}.get(position, spare_x // 2)
    return images[..., top : top + size, left : left + size]


def _pad(values: Tensor, size: int) -> Tensor:
    spare_y, spare_x = size - values.shape[-2], size - values.shape[-1]
    return F.pad(values, (spare_x // 2, spare_x - spare_x // 2, spare_y // 2, spare_y - spare_y // 2))


def resized_positions(positions: Tensor, own: int, size: int, patch: int) -> Tensor:
    """A CLIP encoder's position embedding (1 + (own/patch)², width) for pictures of `size` px: (1 + (size/patch)², width).

    The class token's stays; the grid is interpolated as transformers' interpolate_pos_encoding does (bicubic).
    """
    before, after = own // patch, size // patch
    grid = positions[1:].float().unflatten(0, (before, before)).movedim(-1, 0)[None]  # (1, width, g, g)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], grid[0].flatten(1).T.to(positions)))


def central_square(masks: Tensor, size: int) -> Tensor:
    """Masks (n, H, W) -> (n, size, size): the square at the centre, bicubic, as the host crops pictures."""
    height, width = masks.shape[-2:]
    if (height, width) == (size, size):
        return masks
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    square = masks[:, None, top : top + side, left : left + side]
    return F.interpolate(square, size=(size, size), mode="bicubic", antialias=True)[:, 0]
