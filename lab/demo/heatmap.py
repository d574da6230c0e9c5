"""Where the image acts: the README's picture, by Image Prompt: Watch and Image Prompt: Heat Map in the toy world."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from ...ipadapter_core.pictures.heat import coloured
from ..toy import models as toy
from .gallery import REFERENCES, halves
from .sheet import Sheet, reference, to_image
from .studio import Part, Scene, Studio, node

WIDTH, HEIGHT, CELL, GAP = 884, 476, 150, 8
LEFT, MIDDLE, RIGHT, TOP = 28, 208, 546, 128
WIDE, STEP, LABEL = 2 * CELL + GAP, CELL + 36, 19
OPACITY = 0.75


def picture(studio: Studio) -> Image.Image:
    """Two references, the picture of both, and where each of them acted."""
    a, b = (reference(seed) for seed in REFERENCES[:2])
    made, drawn = watched(studio, a, b)
    sheet = Sheet(WIDTH, HEIGHT, CELL, GAP)
    sheet.write(LEFT, 18, "Where each image acts", 30)
    sheet.write(
        LEFT, 60, "A steers the left half, B the right one. Heat Map shows what each added.", LABEL, True
    )
    for n, (each, name) in enumerate(((a, "A"), (b, "B"))):
        y = TOP + n * STEP
        sheet.write(LEFT + CELL / 2, y - 28, f"image {name}", LABEL, True, "ma")
        sheet.row(LEFT, y, [each], framed=(0,))
        sheet.write(RIGHT + WIDE / 2, y - 28, f"where {name} acts", LABEL, True, "ma")
        sheet.row(RIGHT, y, [drawn[n : n + 1]])
    y = TOP + STEP // 2
    sheet.write(MIDDLE + WIDE / 2, y - 28, "made of both", LABEL, True, "ma")
    sheet.row(MIDDLE, y, [made])
    _scale(sheet, MIDDLE + 34, y + CELL + 44)
    return sheet.page


def _scale(sheet: Sheet, x: int, y: int) -> None:
    """The colours from nothing to the most, with what they mean."""
    width, height = WIDE - 68, 14
    bar = coloured(torch.linspace(0, 1, width).expand(1, height, width))
    sheet.page.paste(to_image(bar), (x, y))
    sheet.write(x, y + 20, "nothing", 16, True)
    sheet.write(x + width, y + 20, "most", 16, True, "ra")


def watched(studio: Studio, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """One wide picture from two references, each in its half (1, h, 2h, 3); where each acted, over it (2, h, 2h, 3)."""
    model, watch = node("ImagePromptWatch")(studio.model)
    parts = tuple(Part(each, mask=mask) for each, mask in zip((left, right), halves(), strict=True))
    scene = Scene(parts, size=(toy.LATENT_SIZE, 2 * toy.LATENT_SIZE))
    made = replace(studio, model=model).make(scene)
    return made, node("ImagePromptHeatMap")(watch, made, OPACITY)[0]
