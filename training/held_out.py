"""The loss on pictures that are not trained on: always the same noise and timesteps, so that steps and runs compare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..ipadapter_core.training.config import CaptionChoice, Timesteps, TrainingConfig
from ..ipadapter_core.training.kinds import OF_TRANSFORMERS
from .draws import Data, Draws, batch_sampler

# of order, noise and timesteps, whatever the run's own seed is
SEED = 20_230_813


class Measured(Protocol):
    """What a loss is computed with: a trainer."""

    number: int
    config: TrainingConfig
    accelerator: Any

    def loss_on(self, draws: Draws, batch: int) -> Tensor: ...


def measuring_config(config: TrainingConfig) -> TrainingConfig:
    """Nothing is dropped, nothing else is random, and every timestep counts alike."""
    plain = replace(config, drop_text=0.0, drop_image=0.0, drop_both=0.0, noise_offset=0.0, min_snr=0.0)
    plain = replace(plain, timesteps=Timesteps.UNIFORM if config.kind in OF_TRANSFORMERS else Timesteps.AUTO)
    return replace(plain, flip=False, crops=1, captions=CaptionChoice.FIRST, seed=SEED)


class HeldOut:
    """data: encoded pictures. every: steps between measurements. batches: how many are measured, each with other noise."""

    def __init__(self, data: Data, every: int, batches: int):
        self.data, self.every, self.batches = data, every, batches
        self._draws: Draws | None = None

    def loss(self, trainer: Measured) -> float | None:
        """The mean over all processes after a step that is measured, and after the last one."""
        config = trainer.config
        if trainer.number % self.every and trainer.number != config.steps:
            return None
        count = config.batch_size * trainer.accelerator.num_processes
        if self._draws is None:
            plain = measuring_config(config)
            self._draws = Draws(plain, self.data, batch_sampler(plain, self.data, count))
        with torch.no_grad():
            losses = [trainer.loss_on(self._draws, number).detach() for number in range(self.batches)]
        return float(trainer.accelerator.reduce(torch.stack(losses).mean(), "mean"))
