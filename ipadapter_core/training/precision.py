"""The precision that a run computes in: the UNet's dtype, autocast, and the scale of the loss in fp16."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .config import TrainingConfig, UnetDtype

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def unet_dtype(loaded: torch.dtype, config: TrainingConfig) -> torch.dtype:
    """What the UNet computes in without autocast. loaded: what it computes in as the host loaded it.

    fp32 and fp16 stay, fp16 with its loss scaled. Two half precisions are never mixed: a UNet in one of them is cast to
    that of the config. bf16 is too coarse where the config asks for full precision (cosine of gradients 0.998): it is
    cast to fp32.
    """
    if config.unet is not UnetDtype.AUTO:
        return DTYPES[config.unet.value]
    half = DTYPES.get(config.precision.value)
    if half is None:
        return torch.float32 if loaded is torch.bfloat16 else loaded
    return loaded if loaded is torch.float32 else half


def autocast_dtype(config: TrainingConfig) -> torch.dtype | None:
    return DTYPES.get(config.precision.value)


class LossScale:
    """Keeps gradients that pass through fp16 above its smallest numbers. The scale is a power of two, so that dividing by
    it is exact. It is halved where gradients overflow, and the step is repeated; it is doubled after `PATIENCE` steps
    without overflow.

    Not torch's GradScaler, which skips the step: then a step would not be a function of its number alone.
    """

    FIRST, MOST, PATIENCE = 2.0**16, 2.0**24, 2000

    def __init__(self, config: TrainingConfig, unet: torch.dtype):
        self.used = torch.float16 in (unet, autocast_dtype(config))
        self.value, self.good_steps = self.FIRST if self.used else 1.0, 0

    def unscale(self, gradients: Iterable[Tensor]) -> Tensor:
        """Divide in place; a bool on the device: whether all are finite."""
        held = list(gradients)
        if self.used:
            for gradient in held:
                gradient.div_(self.value)
        return torch.stack([gradient.isfinite().all() for gradient in held]).all()

    def back_off(self) -> bool:
        """After gradients that are not finite: whether a smaller scale is left to try."""
        self.value, self.good_steps = self.value / 2, 0
        return self.used and self.value >= 1.0

    def update(self) -> None:
        """After a step with finite gradients."""
        self.good_steps += 1
        if self.used and self.good_steps >= self.PATIENCE:
            self.value, self.good_steps = min(self.value * 2, self.MOST), 0

    def state_dict(self) -> list[float]:
        return [self.value, self.good_steps]

    def load_state_dict(self, saved: list[float] | None) -> None:
        """saved: None in states of runs before there was a scale."""
        if self.used and saved:
            self.value, self.good_steps = saved[0], int(saved[1])
