"""What `accelerate launch` was told, and accelerate's view of this process."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import torch

from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.packages import load
from ..ipadapter_core.training.recipe import Recipe, typed

log = logging.getLogger(__name__)

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
    """The recipe with what `accelerate launch` was told, where the recipe itself says nothing. Raises SettingError
    where both say something, or for a way of training that this trainer has not."""
    for variable, way in REFUSED.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise SettingError(
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
        raise SettingError(
            f"{name} is {plain[0]} in the settings, and accelerate launch says {plain[1]} ({variable}). Give it in one "
            "place, or the same in both."
        )
    log.info("Image Prompt: %s is %s, as accelerate launch was told", name, getattr(value, "value", value))
    return value


def accelerator_for(recipe: Recipe, device: torch.device) -> Any:
    """Accelerate's view of this process: alone, or one of several that `accelerate launch` started.

    Accumulation and the scale of the loss are the trainer's own, so that no step depends on what accelerate counted.
    """
    accelerate = load("accelerate")
    if accelerate.state.AcceleratorState._shared_state:  # an earlier run in this process had other settings
        accelerate.state.AcceleratorState._reset_state()
    return accelerate.Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=recipe.precision.value,
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[accelerate.GradScalerKwargs(enabled=False)],
    )
