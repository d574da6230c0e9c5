"""The objective of flow models, Flux and SD3: noise in a straight line, and the velocity along it (arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import Timesteps, TrainingConfig
from .objective import DrawTimes


@dataclass(frozen=True, eq=False)
class Flow:
    """Times are sigmas: the part of noise, 0 to 1.

    shifted: the model's own shift of t in 0..1 to sigma. scale: of a sigma, as the network reads it (1, or 1000 of SD3).
    default: how t is drawn where the config leaves it to the family.
    """

    shifted: Callable[[Tensor], Tensor]
    scale: float = 1.0
    default: Timesteps = Timesteps.UNIFORM

    def times(self, config: TrainingConfig) -> DrawTimes:
        """Uniform, or the sigmoid of normal numbers (arXiv 2403.03206, section 3.1; diffusers' training_utils.py,
        compute_density_for_timestep_sampling), and then shifted."""
        kind = self.default if config.timesteps is Timesteps.AUTO else config.timesteps

        def draw(generator: torch.Generator, count: int) -> Tensor:
            if kind is Timesteps.UNIFORM:
                return self.shifted(torch.rand(count, generator=generator))
            logits = config.logit_mean + config.logit_std * torch.randn(count, generator=generator)
            return self.shifted(torch.sigmoid(logits))

        return draw

    def timesteps(self, times: Tensor) -> Tensor:
        return times * self.scale

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """x = (1 - sigma) · x_0 + sigma · eps of latents (n, c, h, w) at sigmas (n,)."""
        sigma = times.to(latents).view(-1, 1, 1, 1)
        return (1.0 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """v = eps - x_0"""
        return noise - latents

    def weights(self, times: Tensor, config: TrainingConfig) -> None:
        """All are 1, as in the trainers for these models."""
