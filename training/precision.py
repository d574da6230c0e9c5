"""In what precision a run computes: what the launcher asked for, the UNet's dtype, and the scale of the loss in fp16."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..common.extras import extra
from ..ipadapter_core.errors import RecipeError
from ..ipadapter_core.training.recipe import Recipe, UnetDtype, typed

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What `accelerate launch` and its config files hand on, and the flags that ask for other kinds of training.
LAUNCHED = {
    "precision": "ACCELERATE_MIXED_PRECISION",
    "accumulation": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
}
REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def as_launched(recipe: Recipe) -> Recipe:
    """The recipe with what `accelerate launch` was told, where the recipe itself says nothing. Raises RecipeError
    where both say something, or for a way of training that this trainer has not."""
    for variable, way in REFUSED.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise RecipeError(
                f"accelerate was told to use {way}; this trainer runs on one GPU, or on several with a copy of the model "
                f"each. Run `accelerate config` for multi-GPU, or launch without {way}."
            )
    asked = {name: value for name in LAUNCHED if (value := _launched(name, recipe)) is not None}
    return replace(recipe, **asked) if asked else recipe


def _launched(name: str, recipe: Recipe) -> object:
    """The launcher's value for this field, None where the recipe's stands."""
    variable, own, default = LAUNCHED[name], getattr(recipe, name), getattr(Recipe(), name)
    value = typed(f"{name} from {variable}", os.environ.get(variable, own), default)
    if value in (own, default):
        return None
    if own != default:
        plain = getattr(own, "value", own), getattr(value, "value", value)
        raise RecipeError(
            f"{name} is {plain[0]} in the settings, and accelerate launch says {plain[1]} ({variable}). Give it in one "
            "place, or the same in both."
        )
    log.info("Image Prompt: %s is %s, as accelerate launch was told", name, getattr(value, "value", value))
    return value


def accelerator_for(recipe: Recipe, device: torch.device) -> Any:
    """Accelerate's view of this process: alone, or one of several that `accelerate launch` started.

    Accumulation and the scale of the loss are the trainer's own, so that no step depends on what accelerate counted.
    """
    accelerate = extra("accelerate")
    if accelerate.state.AcceleratorState._shared_state:  # an earlier run in this process had other settings
        accelerate.state.AcceleratorState._reset_state()
    return accelerate.Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=recipe.precision.value,
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[accelerate.GradScalerKwargs(enabled=False)],
    )


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
            torch._foreach_div_(held, self.value)
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
