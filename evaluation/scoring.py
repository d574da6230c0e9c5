"""Groups of pictures -> embeddings -> scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.metrics.scores import Captions, Sample, Score, Summary, score, summarise
from .clip import Clip
from .matching import Group, Picture


@dataclass(frozen=True)
class Result:
    """name: of the method. groups and scores in the same order. parameters: trained ones, None if not known."""

    name: str
    groups: Sequence[Group]
    scores: Sequence[Score]
    summary: Summary
    captions: Captions
    parameters: int | None = None


class Embeddings:
    """Embeddings of references and captions are made once, for however many methods. prefix: before every caption."""

    def __init__(self, clip: Clip, prefix: str = ""):
        self.clip, self.prefix = clip, prefix
        self._pictures: dict[Path | int, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    def samples(self, groups: Sequence[Group]) -> list[Sample]:
        references = {_key(group.reference): group.reference for group in groups}
        _fill(self._pictures, references, lambda new: self.clip.pictures([references[key] for key in new]))
        told = [caption for group in groups for caption in group.captions]
        _fill(self._texts, told, lambda new: self.clip.texts([self.prefix + caption for caption in new]))
        generated = self.clip.pictures([path for group in groups for path in group.generated])
        parts = generated.split([len(group.generated) for group in groups])
        return [
            Sample(group.name, self._pictures[_key(group.reference)], part, self._captions(group, part))
            for group, part in zip(groups, parts, strict=True)
        ]

    def _captions(self, group: Group, like: Tensor) -> Tensor:
        rows = [self._texts[caption] for caption in group.captions]
        return torch.stack(rows) if rows else like.new_zeros(0, like.shape[-1])


def _key(picture: Picture) -> Path | int:
    return picture if isinstance(picture, Path) else id(picture)


def _fill(known: dict[Any, Tensor], wanted: Iterable[Any], embed: Callable[[list[Any]], Tensor]) -> None:
    new = [item for item in dict.fromkeys(wanted) if item not in known]
    if new:
        known |= dict(zip(new, embed(new), strict=True))


def evaluate(
    name: str,
    groups: Sequence[Group],
    embeddings: Embeddings,
    captions: Captions = Captions.FIRST,
    parameters: int | None = None,
) -> Result:
    """CLIP-I and CLIP-T of one method's pictures."""
    samples = embeddings.samples(groups)
    scores = [score(sample, captions) for sample in samples]
    return Result(name, groups, scores, summarise(samples, captions), captions, parameters)
