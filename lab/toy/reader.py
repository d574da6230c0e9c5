"""A judge of pictures that nothing else here uses: which shape is on which pattern, and where its colours are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import storage, world
from .config import WEIGHTS

FILE = "reader.safetensors"
SIDE, WIDTH = world.SIZE // 2, 32
# of a pixel from the colour that it is counted for, in RGB of 0..1
NEAR = 0.25


class Reader(nn.Module):
    """Pictures (n, 3, 96, 96) in 0..1 -> scores of SHAPES (n, 6) and of PATTERNS (n, 4): a small classifier."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, WIDTH // 2, WIDTH, 2 * WIDTH, 2 * WIDTH)
        layers = [
            layer
            for a, b in pairwise(widths)
            for layer in (nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(4, b), nn.ReLU(), nn.MaxPool2d(2))
        ]
        self.features = nn.Sequential(*layers)
        self.shape = nn.Linear(2 * WIDTH * (SIDE // 16) ** 2, len(world.SHAPES))
        self.pattern = nn.Linear(2 * WIDTH * (SIDE // 16) ** 2, len(world.PATTERNS))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        small = F.interpolate(pictures, size=(SIDE, SIDE), mode="area")
        features = self.features(small - 0.5).flatten(1)
        return self.shape(features), self.pattern(features)


def load_reader(folder: Path = WEIGHTS) -> Reader:
    """Trained, frozen."""
    reader = Reader()
    reader.load_state_dict(storage.load(folder / FILE))
    return reader.eval().requires_grad_(False)


@torch.inference_mode()
def read(reader: Reader, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures as nodes have them (n, 96, 96, 3) -> the shapes and patterns that they show, (n,) each."""
    shape, pattern = reader(pictures.movedim(-1, 1))
    return shape.argmax(1), pattern.argmax(1)


def shares(picture: Tensor, colours: Tensor, region: Tensor) -> Tensor:
    """Of the pixels of each colour, the part that lies in its region (n,); 0 where there is none at all.

    picture: (h, w, 3). colours: (n, 3), the pixel counts for the nearest, if that is near. region: (n, h, w) of booleans.
    """
    distance = (picture[..., None, :] - colours).norm(dim=-1)
    least, nearest = distance.min(-1)
    counted = (nearest == torch.arange(len(colours))[:, None, None]) & (least < NEAR)
    return (counted & region).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
