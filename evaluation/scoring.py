"""Groups of pictures -> embeddings -> scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import SettingError, shown
from ..ipadapter_core.metrics.scores import Captions, Sample, Score, Summary, score, summarise
from .clip import Clip
from .embedding import PictureEncoder
from .kept import Kept
from .matching import Group, Picture


@dataclass(frozen=True)
class Result:
    """name: of the method. groups and scores in the same order. parameters: trained ones, None if unknown.

    broken: a sentence for each picture that could not be read and is left out. seeds: what its pictures were made with, ''
    where that is unknown. extras: other measures by name.
    """

    name: str
    groups: Sequence[Group]
    scores: Sequence[Score]
    summary: Summary
    captions: Captions
    parameters: int | None = None
    broken: Sequence[str] = ()
    seeds: str = ""
    extras: Mapping[str, float] = field(default_factory=dict)


class Embeddings:
    """Embeddings of pictures and captions, computed once for all methods and, with a folder, for later runs. prefix: before
    every caption. dino: another encoder of pictures, None without DINO-I. most: embeddings that are kept; None for all."""

    def __init__(
        self,
        clip: Clip,
        prefix: str = "",
        folder: Path | None = None,
        dino: PictureEncoder | None = None,
        most: int | None = None,
    ):
        self.clip, self.prefix, self.dino = clip, prefix, dino
        self._kept = Kept(folder, clip.identity, most)
        self._dino = None if dino is None else Kept(folder, dino.identity, most)
        self._broken: dict[str, str] = {}
        # keys of pictures in memory, which the groups hold
        self._pixels: dict[int, str] = {}

    def samples(self, groups: Sequence[Group]) -> tuple[list[Group], list[Sample], list[str]]:
        """(groups, their samples, sentences about pictures that cannot be read and are left out)."""
        pictures = [picture for group in groups for picture in (group.reference, *group.generated)]
        self._embed(self.clip, self._kept, pictures)
        if self.dino is not None and self._dino is not None:
            self._embed(self.dino, self._dino, pictures)
        self._embed_texts([caption for group in groups for caption in group.captions])
        kept, samples, broken = [], [], []
        for group in groups:
            read = tuple(each for each in group.generated if self._key(each) not in self._broken)
            broken += [why for each in group.generated if (why := self._broken.get(self._key(each)))]
            if why := self._broken.get(self._key(group.reference)):
                broken.append(f"{why} Its {len(group.generated)} pictures are left out.")
            elif read:
                kept.append(replace(group, generated=read))
                samples.append(self._sample(kept[-1]))
        return kept, samples, broken

    def _key(self, picture: Picture) -> str:
        if isinstance(picture, Path):
            return self._kept.of_file(picture)
        if id(picture) not in self._pixels:
            self._pixels[id(picture)] = self._kept.of_picture(picture)
        return self._pixels[id(picture)]

    def _embed(self, encoder: PictureEncoder, kept: Kept, pictures: Sequence[Picture]) -> None:
        """What is embedded is kept, also when the run is stopped."""
        wanted = {self._key(picture): picture for picture in pictures}
        new = {k: p for k, p in wanted.items() if k not in self._broken and kept.get(k) is None}
        keys, broken = list(new), dict[int, str]()
        bar = tqdm(
            total=len(new), desc=f"pictures for {Path(encoder.name).name}", unit="picture", leave=False
        )
        try:
            with bar:
                for indices, rows in encoder.batches(list(new.values()), broken) if new else ():
                    kept.put([keys[index] for index in indices], rows)
                    bar.update(len(indices))
        finally:
            kept.save()
        self._broken |= {keys[index]: why for index, why in broken.items()}

    def _embed_texts(self, captions: Sequence[str]) -> None:
        texts = [self.prefix + text for text in dict.fromkeys(captions)]
        new = [text for text in texts if self._kept.get(self._kept.of_text(text)) is None]
        if new:
            self._kept.put([self._kept.of_text(text) for text in new], self.clip.texts(new))
            self._kept.save()

    def _sample(self, group: Group) -> Sample:
        reference, generated = self._rows(self._kept, group)
        captions = [self._kept.get(self._kept.of_text(self.prefix + text)) for text in group.captions]
        texts = [each for each in captions if each is not None]
        table = torch.stack(texts) if texts else generated.new_zeros(0, generated.shape[-1])
        dino = None if self._dino is None else self._rows(self._dino, group)
        return Sample(group.name, reference, generated, table, dino)

    def _rows(self, kept: Kept, group: Group) -> tuple[Tensor, Tensor]:
        rows = [kept.get(self._key(picture)) for picture in (group.reference, *group.generated)]
        first, *rest = (row for row in rows if row is not None)
        return first, torch.stack(rest)


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
    return Result(name, kept, scores, summarise(scores), captions, parameters, broken)


def shared_references(results: Sequence[Result]) -> set[str]:
    """Names of the references that every method has pictures of."""
    return set.intersection(*({group.name for group in result.groups} for result in results))


def restricted(result: Result, names: set[str]) -> Result:
    """Its scores over these references only."""
    kept = [n for n, group in enumerate(result.groups) if group.name in names]
    scores = [result.scores[n] for n in kept]
    return replace(result, groups=[result.groups[n] for n in kept], scores=scores, summary=summarise(scores))
