"""The banner and the icon of the registry and the README, of pictures of the toy world."""

from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

from .gallery import BESIDE_WORDS, REFERENCES, SILHOUETTES, each, side_by_side
from .sheet import Sheet, references, silhouette, to_image
from .studio import Part, Scene, Studio

# 21:9, as the registry asks
WIDTH, HEIGHT, CELL, GAP = 1260, 540, 112, 8
LEFT, TOP = 28, 150
WEIGHTS, WORDS = (0.3, 0.6, 1.0), ("triangle", "heart")
GROUPS = (
    (0, "a picture"),
    (1, "its weight grows"),
    (4, "text beside it"),
    (6, "two regions"),
    (8, "ControlNet"),
)
ICON, TILE = 400, 264


def banner(studio: Studio) -> Image.Image:
    """A row for each reference: it, growing weight, with a word, in one half of two, with a ControlNet."""
    sheet = Sheet(WIDTH, HEIGHT, CELL, GAP)
    sheet.write(LEFT, 22, "Image Prompt", 52)
    sheet.write(
        LEFT + 10 * (CELL + GAP) - GAP, 46, "IP-Adapter for ComfyUI: a picture as the prompt", 26, True, "ra"
    )
    for column, text in GROUPS:
        sheet.write(LEFT + column * (CELL + GAP), TOP - 40, text, 24)
    pictures = references(REFERENCES)
    for n, row in enumerate(_rows(studio, pictures)):
        sheet.row(LEFT, TOP + n * (CELL + GAP), row, framed=(0, len(row) - 2))
    return sheet.page


def _rows(studio: Studio, pictures: Tensor) -> list[list[Tensor | None]]:
    count = len(pictures)
    hint = silhouette(SILHOUETTES[0])
    by_weight = [each(studio.make(Scene((Part(pictures, w),), pictures=count))) for w in WEIGHTS]
    by_word = [
        each(studio.make(Scene((Part(pictures, BESIDE_WORDS),), word, pictures=count))) for word in WORDS
    ]
    kept = each(studio.make(Scene((Part(pictures),), hint=hint, pictures=count)))
    one = each(pictures)
    return [
        [
            one[n],
            *(made[n] for made in (*by_weight, *by_word)),
            side_by_side(studio, one[n], one[(n + 1) % count]),
            hint,
            kept[n],
        ]
        for n in range(count)
    ]


def icon(studio: Studio) -> Image.Image:
    """A reference, and what was made from it before it."""
    picture = references(REFERENCES[:1])
    made = studio.make(Scene((Part(picture),)))
    page = Image.new("RGBA", (ICON, ICON), (0, 0, 0, 0))
    for image, at in ((to_image(picture), 0), (to_image(made), ICON - TILE)):
        page.paste(image.resize((TILE, TILE), Image.Resampling.LANCZOS), (at, at), _rounded())
    return page


def _rounded() -> Image.Image:
    """A mask of a tile with round corners, drawn four times as large so that they are smooth."""
    mask = Image.new("L", (4 * TILE, 4 * TILE))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * TILE - 1, 4 * TILE - 1), 4 * 36, fill=255)
    return mask.resize((TILE, TILE), Image.Resampling.LANCZOS)
