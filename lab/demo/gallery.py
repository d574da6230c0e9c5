"""The demo's one picture: what the pack does, at a glance."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..toy import models as toy
from ..toy import world
from .studio import Part, Scene, Studio

CELL, GAP, MARGIN = 132, 10, 36
INK, FAINT, PAPER = (28, 30, 36), (104, 108, 118), (255, 255, 255)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# seeds of world.py
REFERENCES = (37, 28, 35, 40, 56)
SILHOUETTES = (27, 5)
WORDS = ("circle", "square", "triangle", "heart", "ring")


class Sheet:
    """A white page that grows downwards, a row of cells at a time."""

    def __init__(self, columns: int):
        self.width = 2 * MARGIN + columns * (CELL + GAP) - GAP
        self.page = Image.new("RGB", (self.width, 4000), PAPER)
        self.draw = ImageDraw.Draw(self.page)
        self.y = MARGIN

    def write(self, text: str, size: int = 17, ink: tuple[int, int, int] = INK) -> None:
        self.draw.text((MARGIN, self.y), text, ink, ImageFont.load_default(size))
        self.y += int(size * 1.5)

    def labels(self, texts: list[str], start: int = 0) -> None:
        font = ImageFont.load_default(14)
        for n, text in enumerate(texts, start):
            x = MARGIN + n * (CELL + GAP) + CELL / 2
            self.draw.text((x, self.y), text, FAINT, font, anchor="ma")
        self.y += 22

    def row(self, pictures: list[Tensor | None], framed: tuple[int, ...] = ()) -> None:
        """Pictures (1, h, w, 3) side by side, a wide one over two cells; `framed` marks the inputs."""
        x = MARGIN
        for n, picture in enumerate(pictures):
            cells = 1
            if picture is not None:
                cells = round(picture.shape[2] / picture.shape[1])
                width = cells * (CELL + GAP) - GAP
                self.page.paste(
                    to_image(picture).resize((width, CELL), Image.Resampling.LANCZOS), (x, self.y)
                )
                if n in framed:
                    self.draw.rectangle(
                        (x - 3, self.y - 3, x + width + 2, self.y + CELL + 2), outline=INK, width=2
                    )
            x += cells * (CELL + GAP)
        self.y += CELL + GAP

    def done(self) -> Image.Image:
        return self.page.crop((0, 0, self.width, self.y + MARGIN - GAP))


def to_image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture[0].clamp(0, 1) * 255).round().byte().cpu().numpy())


def reference(seed: int) -> Tensor:
    """A picture of the toy world, (1, 64, 64, 3)."""
    return world.render(world.make_scenes(1, seed)).movedim(1, -1)


def silhouette(seed: int) -> Tensor:
    """The ControlNet hint of that picture's shape, (1, 64, 64, 3)."""
    return world.silhouettes(world.make_scenes(1, seed)).movedim(1, -1)


def contact_sheet(studio: Studio) -> Image.Image:
    sheet = Sheet(columns=1 + len(WEIGHTS))
    sheet.write("Image Prompt: a picture as the prompt", 30)
    sheet.write(
        "Every picture below came out of ComfyUI's sampler and this pack's nodes. Framed: what was put in.",
        15,
        FAINT,
    )
    _strengths(sheet, studio)
    _text_and_image(sheet, studio)
    _regions(sheet, studio)
    _structure(sheet, studio)
    return sheet.done()


def _strengths(sheet: Sheet, studio: Studio) -> None:
    sheet.y += 14
    sheet.write("1  Image only: empty text, the same noise, growing weight")
    sheet.labels(["reference", *(f"weight {w:g}" for w in WEIGHTS)])
    for seed in REFERENCES[:4]:
        picture = reference(seed)
        made = [studio.make(Scene((Part(picture, weight),))) for weight in WEIGHTS]
        sheet.row([picture, *made], framed=(0,))


def _text_and_image(sheet: Sheet, studio: Studio) -> None:
    sheet.y += 18
    sheet.write("2  Text and image: the word gives the shape, the picture the colours (weight 0.5)")
    sheet.labels(["reference", *(f"“{word}”" for word in WORDS)])
    picture = reference(REFERENCES[0])
    made = [studio.make(Scene((Part(picture, 0.5),), text=word)) for word in WORDS]
    sheet.row([picture, *made], framed=(0,))


def _regions(sheet: Sheet, studio: Studio) -> None:
    sheet.y += 18
    sheet.write("3  Two pictures, two masked regions: left half and right half, then the other way round")
    sheet.labels(["reference A", "reference B", "A left, B right", "", "B left, A right"])
    cells = toy.LATENT_SIZE
    left = torch.zeros(1, cells * 8, cells * 16)
    left[..., : cells * 8] = 1
    for a, b in (REFERENCES[:2], REFERENCES[2:4]):
        pair = reference(a), reference(b)
        made = [
            studio.make(
                Scene((Part(pair[0], mask=mask), Part(pair[1], mask=1 - mask)), size=(cells, 2 * cells))
            )
            for mask in (left, 1 - left)
        ]
        sheet.row([*pair, *made], framed=(0, 1))


def _structure(sheet: Sheet, studio: Studio) -> None:
    sheet.y += 18
    sheet.write("4  With a ControlNet: each row keeps a silhouette, each column takes a reference's look")
    pictures = [reference(seed) for seed in REFERENCES]
    sheet.row([None, *pictures], framed=tuple(range(1, 6)))
    for seed in SILHOUETTES:
        hint = silhouette(seed)
        sheet.row(
            [hint, *(studio.make(Scene((Part(picture),), hint=hint)) for picture in pictures)], framed=(0,)
        )
