"""Random draws of a step: functions of seed and step alone, so that a resumed run and one on more GPUs draw the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .recipe import Recipe

_STEP, _ORDER, _MIX = 1, 2, 0x9E3779B97F4A7C15  # the golden ratio in 64 bits: neighbours get far seeds


@dataclass(frozen=True, eq=False)
class Draws:
    """Of n samples, on the CPU. timesteps (n,) whole numbers. noise (n, c, h, w). drop_text, drop_image (n,) bool."""

    timesteps: Tensor
    noise: Tensor
    drop_text: Tensor
    drop_image: Tensor

    def rows(self, part: slice) -> Draws:
        return Draws(self.timesteps[part], self.noise[part], self.drop_text[part], self.drop_image[part])


def draw(recipe: Recipe, batch: int, shape: Sequence[int], timesteps: int) -> Draws:
    """Draws of batch 0, 1, ... (a step has `accumulation` of them) for latents (n, c, h, w) of all processes together.

    timesteps: how many the diffusion has; each is as likely (eq. 1). One number for each sample decides what is dropped:
    the image, the text, both or nothing (tutorial_train.py of the reference).
    """
    generator = generator_of(recipe.seed, _STEP, batch)
    count, channels = shape[:2]
    times = torch.randint(timesteps, (count,), generator=generator)
    noise = torch.randn(tuple(shape), generator=generator)
    if recipe.noise_offset:
        noise += recipe.noise_offset * torch.randn((count, channels, 1, 1), generator=generator)
    number = torch.rand(count, generator=generator)
    image, text = recipe.drop_image, recipe.drop_image + recipe.drop_text
    both = (number >= text) & (number < text + recipe.drop_both)
    return Draws(times, noise, (number >= image) & (number < text) | both, (number < image) | both)


def order(recipe: Recipe, epoch: int, count: int) -> list[int]:
    """0 .. count - 1 shuffled, another way in every epoch."""
    return torch.randperm(count, generator=generator_of(recipe.seed, _ORDER, epoch)).tolist()


def generator_of(seed: int, purpose: int, number: int) -> torch.Generator:
    mixed = ((seed * 4 + purpose) * _MIX + number * (_MIX >> 7 | 1)) % 2**63
    return torch.Generator().manual_seed(mixed)
