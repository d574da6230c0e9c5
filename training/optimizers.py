"""What moves the weights: AdamW as the paper has it, and others by their libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..ipadapter_core.errors import MissingPackageError, SettingError
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
    make = _MAKE[config.optimizer]
    try:
        if config.optimizer is not Optimizer.ADAMW:
            _try(make, next(trainable.parameters()).device)
        return make(groups, lr=config.lr_at(0), weight_decay=config.weight_decay)
    except MissingPackageError:
        raise
    # whatever its library raises where it does not know the device
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SettingError(
            f"optimizer is {config.optimizer.value}, which does not run here ({reason}). Set optimizer to adamw."
        ) from error


def _try(make: Callable[..., Any], device: torch.device) -> None:
    """One step, as some find out only then: of as many weights as 8-bit states are kept for."""
    trial = torch.nn.Parameter(torch.zeros(4096, device=device))
    trial.grad = torch.ones_like(trial)
    make([trial], lr=1e-3, weight_decay=0.0).step()


def set_rates(optimizer: Any, config: TrainingConfig, step: int) -> float:
    """The learning rates of step 0, 1, ...; returns that of K' and V'."""
    rates = [config.projection_rate, 0.0] if config.projection_rate else [0.0]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = config.lr_at(step, rate)
    return config.lr_at(step)
