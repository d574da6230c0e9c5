"""From encoded pictures to the rows of one batch: which pictures, shown how, and latents that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..ipadapter_core.training.base import Texts
from ..ipadapter_core.training.batches import BatchSampler, CropInfo
from ..ipadapter_core.training.config import CaptionChoice, Latents, TrainingConfig
from ..ipadapter_core.training.noise import View, batch_views, latents_noise
from .cache import Rows
from .encoded import drawn_latents


class Data(Protocol):
    """Encoded pictures: `Encodings`, or anything else that has batches. shares: how often an epoch shows each picture, none
    where all are shown once. views: how each picture of a batch is shown, none where all are shown alike."""

    @property
    def crops(self) -> Sequence[CropInfo]: ...
    @property
    def shares(self) -> Sequence[float]: ...
    @property
    def no_text(self) -> Texts: ...
    @property
    def no_image(self) -> Tensor: ...

    def batch(
        self, numbers: Sequence[int], views: Sequence[View] = ()
    ) -> tuple[Rows, Sequence[CropInfo]]: ...
    def prefetch(self, numbers: Sequence[int], views: Sequence[View] = ()) -> None: ...


def batch_sampler(config: TrainingConfig, data: Data, count: int) -> BatchSampler:
    """Batches of `count` pictures over all processes."""
    return BatchSampler(config, [crop.bucket for crop in data.crops], count, data.shares)


@dataclass(frozen=True)
class Draws:
    """Batches of data: a function of the config and their number."""

    config: TrainingConfig
    data: Data
    sampler: BatchSampler

    def rows(self, batch: int, part: slice) -> tuple[Rows, Sequence[CropInfo]]:
        """A process's part of batch 0, 1, ...; the next one is read meanwhile."""
        found = self.data.batch(self.sampler.batch(batch)[part], self._views(batch)[part])
        self.data.prefetch(self.sampler.batch(batch + 1)[part], self._views(batch + 1)[part])
        return found

    def _views(self, batch: int) -> Sequence[View]:
        config = self.config
        alike = not config.flip and config.crops == 1 and config.captions is CaptionChoice.FIRST
        return () if alike else batch_views(config, batch, self.sampler.count)

    def shape(self, rows: Rows) -> tuple[int, ...]:
        """Of the latents of all processes."""
        channels, height, width = rows["latents"].shape[1:]
        halves = 2 if self.config.latents is Latents.SAMPLED else 1
        return self.sampler.count, channels // halves, height, width

    def latents(self, rows: Rows, batch: int, shape: Sequence[int], part: slice) -> Tensor:
        """Of this process's part; drawn anew in each batch where they are sampled."""
        if self.config.latents is not Latents.SAMPLED:
            return rows["latents"]
        return drawn_latents(rows["latents"], latents_noise(self.config, batch, shape)[part])
