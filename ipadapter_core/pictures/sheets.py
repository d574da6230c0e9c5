"""Contact sheets: conversion, squares, text that fits, and pictures with a label each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_GAP = 8  # pixels between pictures


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


def labelled_sheet(pictures: Tensor, labels: Sequence[str], columns: int, side: int = 512) -> Image.Image:
    """Pictures (n, H, W, 3) row by row, each above its label; the longer side of each becomes `side` pixels."""
    height, width = pictures.shape[1:3]
    scale = side / max(height, width)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    columns = max(1, min(columns, len(pictures)))
    size = max(11, min(28, round(width / 14)))
    font, strip = ImageFont.load_default(size), round(size * 1.8)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + strip) + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        left = _GAP + number % columns * (width + _GAP)
        top = _GAP + number // columns * (height + strip)
        sheet.paste(as_image(picture).resize((width, height), Image.Resampling.LANCZOS), (left, top))
        text = fitting(labels[number], font, width) if number < len(labels) else ""
        pen.text((left + width / 2, top + height + strip * 0.45), text, "#222222", font, anchor="mm")
    return sheet
