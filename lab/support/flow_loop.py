"""Sampling as diffusers' pipelines for Flux and SD3.5 do it, written with diffusers' own scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

NEGATIVE, POSITIVE = 1, 0
SHIFTS: dict[str, dict[str, Any]] = {
    "SD3.5": {"shift": 3.0},
    "Flux": {"use_dynamic_shifting": True, "time_shift_type": "exponential"},
}
_FLUX_MU = 1.15  # the host's shift for Flux


def chunks_of(cfg: float) -> tuple[int, ...]:
    """Roles of the rows of a call: with real guidance the negative first, as diffusers has them."""
    return (POSITIVE,) if cfg == 1 else (NEGATIVE, POSITIVE)


def denoised(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, family: str, steps: int, cfg: float
) -> Tensor:
    """Latents as `noise`. predict: of latents (rows, …) and a timestep in 0..1000; rows as of `chunks_of`."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler(**SHIFTS[family])
    even = [1 - step / steps for step in range(steps)]  # as the host's scheduler 'simple'
    scheduler.set_timesteps(sigmas=even, **({"mu": _FLUX_MU} if family == "Flux" else {}))
    latents = noise
    for time in scheduler.timesteps:
        found = predict(torch.cat([latents] * len(chunks_of(cfg))), time)
        if cfg != 1:
            negative, positive = found.chunk(2)
            found = negative + cfg * (positive - negative)
        latents = scheduler.step(found, time, latents, return_dict=False)[0]
    return latents
