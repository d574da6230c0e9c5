"""Samples while training: pictures made from validation pictures, as one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.files.writing import replacing
from ..ipadapter_core.pictures.sheets import as_image, fitting, square
from ..ipadapter_core.training.base import SampleRequest
from ..ipadapter_core.training.trainable import TrainableAdapter
from .callbacks import Callback, Step

# pixels: between pictures, and of a line of text
GAP, BAND = 8, 26


class SamplingBase(Protocol):
    """A base model that can sample."""

    def sample(self, adapter: Checkpoint, request: SampleRequest) -> Tensor: ...


class Samples(Callback):
    """A sheet every so many steps: the picture, made from it alone, made from it with its caption."""

    def __init__(
        self,
        base: SamplingBase,
        trainable: TrainableAdapter,
        requests: Sequence[SampleRequest],
        folder: Path,
        every: int,
        first: bool = False,
    ):
        self.base, self.trainable, self.requests = base, trainable, requests
        self.folder, self.every = folder, every
        if first:
            self._make(0)

    def on_step_end(self, step: Step) -> None:
        if self.every and (step.number % self.every == 0 or step.number == step.steps):
            self._make(step.number)

    def _make(self, step: int) -> None:
        adapter = self.trainable.checkpoint("samples")
        rows = []
        for request in self.requests:
            alone = replace(request, caption="")
            made = [self.base.sample(adapter, each) for each in (alone, request)]
            rows.append(
                [*(square(as_image(picture[0]), request.side) for picture in (request.picture, *made))]
            )
        path = self.folder / f"samples-{step:06d}.png"
        heads = ("picture", f"from it alone, step {step}", "with its caption")
        with replacing(path) as part:
            sheet(rows, heads, [request.caption for request in self.requests]).save(part, "PNG")


def sheet(rows: Sequence[Sequence[Image.Image]], heads: Sequence[str], lines: Sequence[str]) -> Image.Image:
    """Rows of square pictures of one size, a heading for each column, a line under each row."""
    side = max(rows[0][0].width, 160)
    width = len(heads) * (side + GAP) + GAP
    made = Image.new("RGB", (width, BAND + len(rows) * (side + GAP + BAND)), "white")
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(14)
    for column, head in enumerate(heads):
        pen.text((GAP + column * (side + GAP), 5), head, fill="black", font=font)
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        top = BAND + number * (side + GAP + BAND)
        for column, image in enumerate(row):
            made.paste(image.resize((side, side)), (GAP + column * (side + GAP), top))
        pen.text((GAP, top + side + 4), fitting(line, font, width - 2 * GAP), fill="#555555", font=font)
    return made
