"""Settings from `accelerate launch`, and the Accelerator of this process."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import torch

from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.packages import load
from ..ipadapter_core.training.config import TrainingConfig, typed

log = logging.getLogger(__name__)

# What `accelerate launch` and its config files set, and the flags for other kinds of training.
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


def as_launched(config: TrainingConfig) -> TrainingConfig:
    """The config with the settings of `accelerate launch` where its own are the defaults.

    Raises SettingError where both are set and differ, or for a kind of training that this trainer does not support.
    """
    for variable, way in REFUSED.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise SettingError(
                f"accelerate is set to use {way}; this trainer runs on one GPU, or on several with a copy of the model "
                f"each. Run `accelerate config` for multi-GPU, or launch without {way}."
            )
    launched: dict[str, Any] = {
        name: value for name in LAUNCHED if (value := _launched(name, config)) is not None
    }
    return replace(config, **launched) if launched else config


def _launched(name: str, config: TrainingConfig) -> object:
    """The launcher's value for this field, None where the config's holds."""
    variable, own, default = LAUNCHED[name], getattr(config, name), getattr(TrainingConfig(), name)
    value = typed(f"{name} from {variable}", os.environ.get(variable, own), default)
    if value in (own, default):
        return None
    if own != default:
        ours, launched = (getattr(each, "value", each) for each in (own, value))
        raise SettingError(
            f"{name} is {ours} in the settings, and accelerate launch says {launched} ({variable}). Give it in one "
            "place, or the same in both."
        )
    log.info("Image Prompt: %s is %s, as accelerate launch set it", name, getattr(value, "value", value))
    return value


def accelerator_for(config: TrainingConfig, device: torch.device) -> Any:
    """The Accelerator of this process, which runs alone or is one of several that `accelerate launch` started.

    Accumulation and the scale of the loss are the trainer's own, so that no step depends on accelerate's counters.
    """
    accelerate = load("accelerate")
    # an earlier run in this process may have had other settings
    if accelerate.state.AcceleratorState._shared_state:
        accelerate.state.AcceleratorState._reset_state()
    return accelerate.Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=config.precision.value,
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[accelerate.GradScalerKwargs(enabled=False)],
    )
