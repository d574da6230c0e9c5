"""Groups of pictures -> embeddings -> scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.errors import SettingError, shown
from ..ipadapter_core.metrics.scores import Captions, Sample, Score, Summary, score, summarise
from .clip import Clip
from .matching import Group, Picture


@dataclass(frozen=True)
class Result:
    """name: of the method. groups, samples and scores in the same order. parameters: trained ones, None if unknown.

    broken: a sentence for each picture that could not be read and is left out.
    """

    name: str
    groups: Sequence[Group]
    samples: Sequence[Sample]
    scores: Sequence[Score]
    summary: Summary
    captions: Captions
    parameters: int | None = None
    broken: Sequence[str] = ()


class Embeddings:
    """Embeddings of references and captions, computed once for all methods. prefix: before every caption."""

    def __init__(self, clip: Clip, prefix: str = ""):
        self.clip, self.prefix = clip, prefix
        self._pictures: dict[Path | int, Tensor] = {}
        self._broken: dict[Path | int, str] = {}
        self._texts: dict[str, Tensor] = {}

    def samples(self, groups: Sequence[Group]) -> tuple[list[Group], list[Sample], list[str]]:
        """(groups, their samples, sentences about pictures that cannot be read and are left out)."""
        self._embed([group.reference for group in groups])
        captions = [caption for group in groups for caption in group.captions]
        _fill(self._texts, captions, lambda new: self.clip.texts([self.prefix + text for text in new]))
        kept, samples, broken = [], [], []
        for group, rows, unread in self._generated(groups):
            broken += unread
            if why := self._broken.get(_key(group.reference)):
                broken.append(f"{why} Its {len(rows) + len(unread)} pictures are left out.")
            elif group.generated:
                kept.append(group)
                samples.append(self._sample(group, rows))
        return kept, samples, broken

    def _embed(self, references: Sequence[Picture]) -> None:
        new = {_key(picture): picture for picture in references}
        new = {key: picture for key, picture in new.items() if key not in self._pictures | self._broken}
        broken: dict[int, str] = {}
        rows = self.clip.pictures(list(new.values()), broken)
        keys = list(new)
        self._broken |= {keys[index]: why for index, why in broken.items()}
        self._pictures |= dict(zip((key for key in keys if key not in self._broken), rows, strict=True))

    def _generated(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Tensor, list[str]]]:
        """Each group with the pictures that can be read, their embeddings (k, d), and sentences about the others."""
        unread: dict[int, str] = {}
        rows = iter(self.clip.pictures([path for group in groups for path in group.generated], unread))
        start = 0
        for group in groups:
            indices = range(start, start + len(group.generated))
            start = indices.stop
            pairs = zip(indices, group.generated, strict=True)
            read = tuple(picture for index, picture in pairs if index not in unread)
            part = [next(rows) for _ in read]
            why = [unread[index] for index in indices if index in unread]
            yield replace(group, generated=read), torch.stack(part) if part else torch.zeros(0), why

    def _sample(self, group: Group, rows: Tensor) -> Sample:
        captions = [self._texts[caption] for caption in group.captions]
        texts = torch.stack(captions) if captions else rows.new_zeros(0, rows.shape[-1])
        return Sample(group.name, self._pictures[_key(group.reference)], rows, texts)


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
    """CLIP-I and CLIP-T of one method's pictures. Raises SettingError where none can be read."""
    kept, samples, broken = embeddings.samples(groups)
    if not samples:
        raise SettingError(
            f"{shown(name)}: none of its pictures can be scored, as they or their references cannot be read. "
            f"{' '.join(broken[:2])}"
        )
    scores = [score(sample, captions) for sample in samples]
    return Result(name, kept, samples, scores, summarise(samples, captions), captions, parameters, broken)


def shared_references(results: Sequence[Result]) -> set[str]:
    """Names of the references that every method has pictures of."""
    return set.intersection(*({group.name for group in result.groups} for result in results))


def restricted(result: Result, names: set[str]) -> Result:
    """Its scores over these references only."""
    kept = [n for n, group in enumerate(result.groups) if group.name in names]
    samples = [result.samples[n] for n in kept]
    return replace(
        result,
        groups=[result.groups[n] for n in kept],
        samples=samples,
        scores=[result.scores[n] for n in kept],
        summary=summarise(samples, result.captions),
    )
