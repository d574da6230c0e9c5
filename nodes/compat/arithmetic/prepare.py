"""Preprocessing nodes of the de-facto pack: a square for CLIP vision, a portrait for InsightFace."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ....ipadapter_core.pictures.preprocessing import rgb
from .crop import square
from .resampling import resize_8bit
from .sharpening import sharpen

CLIP_SIZE, FACE_SIZE, FACE_BORDER = 224, 640, 30


def for_clip_vision(images: Tensor, interpolation: str, position: str, sharpening: float) -> Tensor:
    """Pictures (n, H, W, c) in 0..1 -> (n, 224, 224, 3): the square at `position`, resized in 8 bits, sharpened."""
    return sharpen(
        resize_8bit(square(rgb(images), position), CLIP_SIZE, CLIP_SIZE, interpolation), sharpening
    )


def for_insightface(images: Tensor, position: str, sharpening: float, pad_around: bool) -> Tensor:
    """Pictures (n, H, W, c) in 0..1 -> (n, 640, 640, 3); pad_around leaves a white border of 30 pixels.

    With the border the detector finds a face that fills the picture.
    """
    border = FACE_BORDER if pad_around else 0
    side = FACE_SIZE - 2 * border
    sharp = sharpen(resize_8bit(square(rgb(images), position), side, side), sharpening)
    return F.pad(sharp, (0, 0, *[border] * 4), value=1.0)
