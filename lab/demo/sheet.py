"""A page with pictures in cells, for what the toy world shows."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..toy import world

INK, FAINT, PAPER = (28, 30, 36), (92, 96, 106), (255, 255, 255)


def to_image(picture: Tensor) -> Image.Image:
    """(1, h, w, 3) in 0..1 -> an image."""
    return Image.fromarray((picture[0].clamp(0, 1) * 255).round().byte().cpu().numpy())


def reference(seed: int) -> Tensor:
    """A picture of the toy world that no training saw, (1, h, w, 3)."""
    return world.render(world.make_scenes(1, seed)).movedim(1, -1)


def references(seeds: tuple[int, ...]) -> Tensor:
    """(n, h, w, 3)."""
    return torch.cat([reference(seed) for seed in seeds])


def silhouette(seed: int) -> Tensor:
    """The ControlNet hint of that picture's shape, (1, h, w, 3)."""
    return world.silhouettes(world.make_scenes(1, seed)).movedim(1, -1)


class Sheet:
    """A white page. Positions are pixels from its upper left corner."""

    def __init__(self, width: int, height: int, cell: int, gap: int):
        self.page = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.page)
        self.cell, self.gap = cell, gap

    def write(
        self, x: float, y: float, text: str, size: int, faint: bool = False, anchor: str = "la"
    ) -> None:
        self.draw.text((x, y), text, FAINT if faint else INK, ImageFont.load_default(size), anchor=anchor)

    def labels(self, x: int, y: int, texts: list[str], size: int) -> None:
        """One above each cell of a row."""
        for n, text in enumerate(texts):
            self.write(x + n * (self.cell + self.gap) + self.cell / 2, y, text, size, True, "ma")

    def row(self, x: int, y: int, pictures: list[Tensor | None], framed: tuple[int, ...] = ()) -> None:
        """Pictures (1, h, w, 3) side by side, a wide one over two cells; `framed` marks what was put in."""
        for n, picture in enumerate(pictures):
            cells = 1
            if picture is not None:
                cells = round(picture.shape[2] / picture.shape[1])
                width = cells * (self.cell + self.gap) - self.gap
                image = to_image(picture).resize((width, self.cell), Image.Resampling.LANCZOS)
                self.page.paste(image, (x, y))
                if n in framed:
                    frame = (x - 3, y - 3, x + width + 2, y + self.cell + 2)
                    self.draw.rectangle(frame, outline=INK, width=3)
            x += cells * (self.cell + self.gap)
