"""In what precision a run computes: the UNet's dtype, autocast, and the scale of the loss in fp16."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .recipe import Recipe, UnetDtype

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def unet_dtype(loaded: torch.dtype, recipe: Recipe) -> torch.dtype:
    """What the UNet computes in without autocast. loaded: what it computes in as the host loaded it.

    fp32 and fp16 stay, fp16 with its loss scaled. A UNet in one half precision meets no other one: it is moved to that of
    the recipe. bf16 is too coarse where the recipe asks for full precision (cosine of gradients 0.998): that goes to fp32.
    """
    if recipe.unet is not UnetDtype.AUTO:
        return DTYPES[recipe.unet.value]
    half = DTYPES.get(recipe.precision.value)
    if half is None:
        return torch.float32 if loaded is torch.bfloat16 else loaded
    return loaded if loaded is torch.float32 else half


def autocast_dtype(recipe: Recipe) -> torch.dtype | None:
    return DTYPES.get(recipe.precision.value)


class LossScale:
    """Keeps gradients that pass through fp16 above its smallest numbers; the scale is a power of two, so that dividing by
    it is exact. It halves where gradients overflow, and the step is done again; it doubles after many steps without."""

    FIRST, MOST, PATIENCE = 2.0**16, 2.0**24, 2000

    def __init__(self, recipe: Recipe, unet: torch.dtype):
        self.used = torch.float16 in (unet, autocast_dtype(recipe))
        self.value, self.good = self.FIRST if self.used else 1.0, 0

    def unscale(self, gradients: Iterable[Tensor]) -> Tensor:
        """Divide in place; a bool on the device: whether all are finite."""
        held = list(gradients)
        if self.used:
            for gradient in held:
                gradient.div_(self.value)
        return torch.stack([gradient.isfinite().all() for gradient in held]).all()

    def overflowed(self) -> bool:
        """After gradients that are not finite: whether a smaller scale is left to try."""
        self.value, self.good = self.value / 2, 0
        return self.used and self.value >= 1.0

    def stepped(self) -> None:
        self.good += 1
        if self.used and self.good >= self.PATIENCE:
            self.value, self.good = min(self.value * 2, self.MOST), 0

    def plain(self) -> list[float]:
        return [self.value, self.good]

    def restore(self, told: list[float] | None) -> None:
        """told: of a state; None in those of runs before there was a scale."""
        if self.used and told:
            self.value, self.good = told[0], int(told[1])
