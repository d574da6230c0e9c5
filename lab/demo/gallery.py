"""The demo's one picture: what the pack does, at a glance."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ..toy import models as toy
from .sheet import Sheet, references, silhouette
from .studio import Part, Scene, Studio

WIDTH, HEIGHT, CELL, GAP = 1200, 896, 106, 7
LEFT, RIGHT, UPPER, LOWER, LOWEST = 28, 728, 104, 516, 700
HEADING, LABEL = 23, 19
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# seeds of world.py
REFERENCES = (77, 40, 38)
SILHOUETTES = (74, 28)
WORDS, BESIDE_WORDS = ("circle", "square", "triangle", "star", "ring"), 0.3
# what is left to the text where the picture gives its style alone, its composition alone
STYLE_TEXT, LAYOUT_TEXT = "square", "yellow on plain deep green"
WHAT_THESE_ARE = (
    "Not photographs: tiny models, trained for this page, draw shapes. ComfyUI's sampler and this pack's nodes "
    "made all but the framed."
)


def contact_sheet(studio: Studio) -> Image.Image:
    sheet = Sheet(WIDTH, HEIGHT, CELL, GAP)
    sheet.write(LEFT, 20, "Image Prompt: a picture as the prompt", 34)
    sheet.write(LEFT, 64, WHAT_THESE_ARE, 19, faint=True)
    pictures = references(REFERENCES)
    _weights(sheet, studio, pictures)
    _structure(sheet, studio, pictures)
    _text_and_image(sheet, studio, pictures)
    _regions(sheet, studio, pictures)
    _style_and_composition(sheet, studio, pictures)
    return sheet.page


def each(pictures: Tensor) -> list[Tensor]:
    """A batch as pictures of their own."""
    return [*pictures.split(1)]


def halves() -> tuple[Tensor, Tensor]:
    """Masks of the left and the right half of a picture of two cells."""
    left = torch.zeros(1, toy.LATENT_SIZE * 8, toy.LATENT_SIZE * 16)
    left[..., : toy.LATENT_SIZE * 8] = 1
    return left, 1 - left


def side_by_side(studio: Studio, left: Tensor, right: Tensor) -> Tensor:
    """One wide picture from two references, each in its half."""
    parts = tuple(Part(picture, mask=mask) for picture, mask in zip((left, right), halves(), strict=True))
    return studio.make(Scene(parts, size=(toy.LATENT_SIZE, 2 * toy.LATENT_SIZE)))


def _heading(sheet: Sheet, x: int, y: int, text: str, labels: list[str]) -> int:
    """Where the first row of pictures begins."""
    sheet.write(x, y, text, HEADING)
    sheet.labels(x, y + 33, labels, LABEL)
    return y + 60


def _weights(sheet: Sheet, studio: Studio, pictures: Tensor) -> None:
    labels = ["reference", *(f"weight {w:g}" for w in WEIGHTS)]
    y = _heading(sheet, LEFT, UPPER, "1  The picture alone, without text, by weight", labels)
    made = [each(studio.make(Scene((Part(pictures, weight),), pictures=len(pictures)))) for weight in WEIGHTS]
    for n, row in enumerate(zip(each(pictures), *made, strict=True)):
        sheet.row(LEFT, y + n * (CELL + GAP), [*row], framed=(0,))


def _structure(sheet: Sheet, studio: Studio, pictures: Tensor) -> None:
    y = _heading(sheet, RIGHT, UPPER, "2  A ControlNet gives the shape", ["shape", *["look"] * len(pictures)])
    sheet.row(RIGHT, y, [None, *each(pictures)], framed=(1, 2, 3))
    for n, seed in enumerate(SILHOUETTES, 1):
        hint = silhouette(seed)
        made = each(studio.make(Scene((Part(pictures),), hint=hint, pictures=len(pictures))))
        sheet.row(RIGHT, y + n * (CELL + GAP), [hint, *made], framed=(0,))


def _text_and_image(sheet: Sheet, studio: Studio, pictures: Tensor) -> None:
    labels = ["reference", *(f"“{word}”" for word in WORDS)]
    y = _heading(
        sheet, LEFT, LOWER, f"3  Text and picture: a word for the shape, weight {BESIDE_WORDS:g}", labels
    )
    picture = pictures[1:2]
    made = [studio.make(Scene((Part(picture, BESIDE_WORDS),), text=word)) for word in WORDS]
    sheet.row(LEFT, y, [picture, *made], framed=(0,))


def _regions(sheet: Sheet, studio: Studio, pictures: Tensor) -> None:
    y = _heading(sheet, LEFT, LOWEST, "4  Two pictures, each in its half", ["A", "B"])
    a, b = pictures[:1], pictures[1:2]
    for n, text in enumerate(("A left, B right", "B left, A right")):
        sheet.write(LEFT + (2 * n + 3) * (CELL + GAP), y - 27, text, LABEL, True, "ma")
    sheet.row(LEFT, y, [a, b, side_by_side(studio, a, b), side_by_side(studio, b, a)], framed=(0, 1))


def _style_and_composition(sheet: Sheet, studio: Studio, pictures: Tensor) -> None:
    labels = ["reference", "style + A", "reference", "layout + B"]
    y = _heading(sheet, RIGHT, LOWER, "5  Only the style, only the layout", labels)
    some, other = pictures[:2], pictures[1:]
    style, layout = (
        each(studio.make(Scene((Part(images, weight_type=kind),), text, pictures=2)))
        for images, kind, text in ((some, "style transfer", STYLE_TEXT), (other, "composition", LAYOUT_TEXT))
    )
    for n, row in enumerate(zip(each(some), style, each(other), layout, strict=True)):
        sheet.row(RIGHT, y + n * (CELL + GAP), [*row], framed=(0, 2))
    sheet.write(RIGHT, y + 2 * (CELL + GAP) + 4, f"A: “{STYLE_TEXT}”.  B: “{LAYOUT_TEXT}”", LABEL, True)
