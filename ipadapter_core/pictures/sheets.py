"""Helpers for contact sheets: conversion, squares, and text that fits."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFont
from torch import Tensor

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def as_image(picture: Tensor) -> Image.Image:
    """(H, W, 3 or more) in 0..1."""
    values = (picture[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(values))


def as_tensor(image: Image.Image) -> Tensor:
    """(1, H, W, 3) in 0..1, as nodes pass pictures around."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).astype(np.float32) / 255)[None]


def square(image: Image.Image, side: int) -> Image.Image:
    """Cropped at the centre and resized to side x side."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS)


def fitting(text: str, font: Font, width: int) -> str:
    """The beginning of a line, with an ellipsis where all of it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
