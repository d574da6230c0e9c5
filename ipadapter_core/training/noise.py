"""Random numbers of a step: functions of seed and step alone, the same in a resumed run and on more GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import CaptionChoice, TrainingConfig
from .objective import DrawTimes

# purposes of a generator
_STEP, _ORDER, _VIEW, _LATENTS = 1, 2, 6, 7
# the golden ratio in 64 bits: neighbours get distant seeds
_MIX = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class BatchNoise:
    """Of n samples, on the CPU. timesteps (n,): whole numbers, or of a flow model its sigmas. noise (n, c, h, w). drop_text,
    drop_image (n,) bool."""

    timesteps: Tensor
    noise: Tensor
    drop_text: Tensor
    drop_image: Tensor

    def rows(self, part: slice) -> BatchNoise:
        return BatchNoise(self.timesteps[part], self.noise[part], self.drop_text[part], self.drop_image[part])


def batch_noise(
    config: TrainingConfig, batch: int, shape: Sequence[int], timesteps: int | DrawTimes
) -> BatchNoise:
    """Of batch 0, 1, ... (a step has `accumulation` of them) for latents (n, c, h, w) of all processes together.

    timesteps: how many the diffusion has; each is equally likely (eq. 1). Or what draws them. One random number a sample
    decides what is dropped: the image, the text, both or nothing (tutorial_train.py of the reference).
    """
    generator = make_generator(config.seed, _STEP, batch)
    count, channels = shape[:2]
    drawn = isinstance(timesteps, int)
    times = torch.randint(timesteps, (count,), generator=generator) if drawn else timesteps(generator, count)
    noise = torch.randn(tuple(shape), generator=generator)
    if config.noise_offset:
        noise += config.noise_offset * torch.randn((count, channels, 1, 1), generator=generator)
    number = torch.rand(count, generator=generator)
    image, text = config.drop_image, config.drop_image + config.drop_text
    both = (number >= text) & (number < text + config.drop_both)
    return BatchNoise(times, noise, (number >= image) & (number < text) | both, (number < image) | both)


def permutation(config: TrainingConfig, epoch: int, count: int) -> Tensor:
    """0 .. count - 1 shuffled, another way in every epoch."""
    return torch.randperm(count, generator=make_generator(config.seed, _ORDER, epoch))


@dataclass(frozen=True)
class View:
    """How one picture is shown in one batch. place: which of the random places it is cut at. caption: which of its captions,
    by a number from 0 up to 1; the first without."""

    flip: bool = False
    place: int = 0
    caption: float | None = None


def batch_views(config: TrainingConfig, batch: int, count: int) -> list[View]:
    """Of batch 0, 1, ... of all processes together; all alike where nothing is random."""
    generator = make_generator(config.seed, _VIEW, batch)
    flips = (torch.rand(count, generator=generator) < 0.5).tolist()
    places = torch.randint(config.crops, (count,), generator=generator).tolist()
    captions = torch.rand(count, generator=generator).tolist()
    random = config.captions is CaptionChoice.RANDOM
    rows = zip(flips, places, captions, strict=True)
    return [View(config.flip and flip, place, caption if random else None) for flip, place, caption in rows]


def latents_noise(config: TrainingConfig, batch: int, shape: Sequence[int]) -> Tensor:
    """Of batch 0, 1, ...: for latents drawn from the VAE's distribution, (n, c, h, w)."""
    return torch.randn(tuple(shape), generator=make_generator(config.seed, _LATENTS, batch))


def make_generator(seed: int, purpose: int, number: int) -> torch.Generator:
    mixed = ((seed * 4 + purpose) * _MIX + number * (_MIX >> 7 | 1)) % 2**63
    return torch.Generator().manual_seed(mixed)
