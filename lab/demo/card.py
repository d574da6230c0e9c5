"""A template's small picture: a dark square with pictures, arrows and words on it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .sheet import to_image

SIDE, SCALE = 400, 2
PAPER, PANEL, EDGE, INK, FAINT = (30, 33, 40), (45, 49, 58), (78, 84, 98), (238, 240, 244), (168, 174, 186)
AMBER, BLUE = (242, 182, 80), (118, 164, 250)
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


class Card:
    """Positions and sizes are pixels of the finished picture, which is drawn twice as large so that edges are smooth."""

    def __init__(self) -> None:
        self.page = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.page)

    def picture(
        self, picture: Tensor, x: float, y: float, height: float, label: str = "", frame: Colour | None = None
    ) -> float:
        """(1, h, w, 3) at this height, with its label below; the x behind it."""
        width = height * picture.shape[2] / picture.shape[1]
        size = (round(width * SCALE), round(height * SCALE))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 7 * SCALE, fill=255)
        image = to_image(picture).resize(size, Image.Resampling.LANCZOS)
        self.page.paste(image, (round(x * SCALE), round(y * SCALE)), mask)
        if frame:
            self.box((x - 2, y - 2, x + width + 2, y + height + 2), None, frame, 8, 2)
        if label:
            self.write(x + width / 2, y + height + 7, label)
        return x + width

    def write(
        self, x: float, y: float, text: str, size: float = 15, colour: Colour = FAINT, anchor: str = "ma"
    ) -> None:
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((x * SCALE, y * SCALE), text, colour, font, anchor=anchor)

    def words(self, x: float, y: float, text: str, size: float = 16) -> None:
        """The text of a prompt in a field, its middle at x."""
        half = self.draw.textlength(text, ImageFont.load_default(size * SCALE)) / SCALE / 2 + 12
        self.box((x - half, y, x + half, y + size + 14), PANEL, EDGE, 6, 1)
        self.write(x, y + (size + 14) / 2, text, size, INK, "mm")

    def box(
        self, box: Box, fill: Colour | None, edge: Colour | None = None, round_: float = 0, width: float = 1
    ) -> None:
        scaled = [value * SCALE for value in box]
        self.draw.rounded_rectangle(scaled, round_ * SCALE, fill, edge, round(width * SCALE))

    def line(self, points: Sequence[tuple[float, float]], colour: Colour = FAINT, width: float = 2) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, colour, round(width * SCALE), joint="curve")

    def arrow(self, x: float, y: float, length: float = 32, down: bool = False) -> None:
        """From its tail at (x, y), to the right or down."""
        turned = [(0, 0), (length, 0), (length - 8, -6), (length, 0), (length - 8, 6)]
        self.line([(x + b, y + a) if down else (x + a, y + b) for a, b in turned], INK)

    def finished(self) -> Image.Image:
        return self.page.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
