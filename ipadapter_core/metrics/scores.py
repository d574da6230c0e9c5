"""CLIP-I and CLIP-T of generated pictures (paper section 4.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError


class Captions(str, Enum):
    """Which of a picture's captions counts. COCO has five of each; the paper does not say which it took."""

    FIRST = "first"
    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True)
class Score:
    """Means of cosines, -1 to 1, over the pictures generated from one reference. None without a caption."""

    name: str
    count: int
    clip_i: float
    clip_t: float | None


@dataclass(frozen=True)
class Summary:
    """Over all references. Means weight every generated picture alike; spreads are standard deviations over references.

    clip_s: CLIPScore, 2.5 · max(cos, 0) of each picture, averaged (Hessel et al., arXiv 2104.08718).
    """

    references: int
    pictures: int
    clip_i: float
    clip_i_spread: float
    clip_t: float | None
    clip_t_spread: float | None
    clip_s: float | None


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise cosines of embeddings (n, d) and (m, d): (n, m), in fp64."""
    return F.normalize(a.double(), dim=-1) @ F.normalize(b.double(), dim=-1).T


def caption_cosines(generated: Tensor, captions: Tensor, which: Captions) -> Tensor:
    """Cosines of pictures (k, d) with the captions (c, d) of their reference: (k,). Raises SettingError without captions."""
    if not len(captions):
        raise SettingError("there is no caption to compare with. Give captions, or leave CLIP-T out.")
    table = cosines(generated, captions)
    return {
        Captions.FIRST: lambda: table[:, 0],
        Captions.MEAN: lambda: table.mean(1),
        Captions.MAX: lambda: table.amax(1),
    }[which]()


@dataclass(frozen=True, eq=False)
class Sample:
    """Embeddings of one reference (d,), of what was generated from it (k, d), and of its captions (c, d), c from 0."""

    name: str
    reference: Tensor
    generated: Tensor
    captions: Tensor


def _of_pictures(sample: Sample, which: Captions) -> tuple[Tensor, Tensor | None]:
    """Cosines of every picture with the reference, and with the caption where there is one: (k,) each."""
    image = cosines(sample.generated, sample.reference[None])[:, 0]
    return image, caption_cosines(sample.generated, sample.captions, which) if len(sample.captions) else None


def score(sample: Sample, which: Captions = Captions.FIRST) -> Score:
    """The means over what was generated from one reference."""
    image, text = _of_pictures(sample, which)
    return Score(sample.name, len(image), image.mean().item(), None if text is None else text.mean().item())


def summarise(samples: Sequence[Sample], which: Captions = Captions.FIRST) -> Summary:
    """Scores over all references; CLIP-T over those with captions. Raises SettingError without samples."""
    if not samples:
        raise SettingError(
            "there is nothing to score: no reference has a generated picture. Check the folders' names."
        )
    measured = [_of_pictures(sample, which) for sample in samples]
    image = [cosine for cosine, _ in measured]
    text = [cosine for _, cosine in measured if cosine is not None]
    joined = torch.cat(text) if text else None
    return Summary(
        len(samples),
        sum(map(len, image)),
        torch.cat(image).mean().item(),
        _spread(image),
        None if joined is None else joined.mean().item(),
        _spread(text) if text else None,
        None if joined is None else (2.5 * joined.clamp(min=0)).mean().item(),
    )


def _spread(parts: Sequence[Tensor]) -> float:
    return torch.stack([part.mean() for part in parts]).std(correction=0).item()
