"""What moves the weights: AdamW as the paper has it, and others by their libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.packages import load
from ..ipadapter_core.training.config import Optimizer, TrainingConfig
from ..ipadapter_core.training.trainable import TrainableAdapter

_MAKE: dict[Optimizer, Callable[..., Any]] = {
    Optimizer.ADAMW: torch.optim.AdamW,
    Optimizer.FUSED: lambda *given, **more: torch.optim.AdamW(*given, fused=True, **more),
    Optimizer.EIGHT_BIT: lambda *given, **more: load("bitsandbytes").optim.AdamW8bit(*given, **more),
    Optimizer.PRODIGY: lambda *given, **more: load("prodigyopt").Prodigy(*given, decouple=True, **more),
}


def make_optimizer(config: TrainingConfig, trainable: TrainableAdapter) -> Any:
    """For all that is trained; in two groups, projection and the rest, where they have two rates.

    Raises MissingPackageError, and SettingError where this machine has no such optimizer.
    """
    groups: list[Any] = list(trainable.parameters())
    if config.projection_rate:
        projection = list(trainable.adapter.image_proj.parameters())
        rest = list(trainable.adapter.ip_adapter.parameters())
        rest += [] if trainable.lora is None else list(trainable.lora.parameters())
        groups = [{"params": projection}, {"params": rest}]
    try:
        return _MAKE[config.optimizer](groups, lr=config.lr_at(0), weight_decay=config.weight_decay)
    # of a device without it
    except RuntimeError as error:
        raise SettingError(
            f"optimizer is {config.optimizer.value}, which does not run here ({error}). Set optimizer to adamw."
        ) from error


def set_rates(optimizer: Any, config: TrainingConfig, step: int) -> float:
    """The learning rates of step 0, 1, ...; returns that of K' and V'."""
    rates = [config.projection_rate, 0.0] if config.projection_rate else [0.0]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = config.lr_at(step, rate)
    return config.lr_at(step)
