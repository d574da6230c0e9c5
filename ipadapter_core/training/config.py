"""The training config: what decides the weights, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from ..errors import SettingError
from ..variant import Variant

# InstantX's of Flux.1; of SD3.5 it has 64 (training.kinds)
TOKENS = {Variant.BASE: 4, Variant.PLUS: 16, Variant.FACEID: 4, Variant.XLABS: 4, Variant.INSTANTX: 128}
# of the published FaceID adapters
LORA_RANK = 128
KINDS = (
    *(Variant.BASE, Variant.PLUS, Variant.FULL, Variant.FACEID),
    *(Variant.XLABS, Variant.INSTANTX),
)
_FROM_0 = (
    *("learning_rate", "weight_decay", "warmup", "noise_offset", "max_grad_norm"),
    *("projection_rate", "min_snr", "logit_std", "guidance"),
)
# of a logit: sigmoid(10) is 1 but for 5e-5
_FARTHEST_LOGIT = 10.0
_LEAST_FOR_PRODIGY = 0.01


class Schedule(str, Enum):
    """The learning rate after warm-up, towards the last step."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Precision(str, Enum):
    FULL = "no"
    FP16 = "fp16"
    BF16 = "bf16"


class UnetDtype(str, Enum):
    """What the UNet's weights are held in while training."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


# The precisions that each may be combined with: not another half precision, and bf16 is too coarse for full precision.
_UNET_WITH = {
    UnetDtype.AUTO: tuple(Precision),
    UnetDtype.FP32: tuple(Precision),
    UnetDtype.FP16: (Precision.FULL, Precision.FP16),
    UnetDtype.BF16: (Precision.BF16,),
}

# Part of the learning rate that is left when `part` of the steps after warm-up are done.
_DECAY: dict[Schedule, Callable[[float], float]] = {
    Schedule.CONSTANT: lambda part: 1.0,
    Schedule.LINEAR: lambda part: 1.0 - part,
    Schedule.COSINE: lambda part: 0.5 * (1.0 + math.cos(math.pi * part)),
}


class Optimizer(str, Enum):
    """What moves the weights; the last two need a package each."""

    ADAMW = "adamw"
    FUSED = "adamw-fused"
    EIGHT_BIT = "adamw-8bit"
    PRODIGY = "prodigy"


class CaptionChoice(str, Enum):
    """Which of a picture's captions it is shown with."""

    FIRST = "first"
    RANDOM = "random"


class Timesteps(str, Enum):
    """How t of a flow model is drawn from 0..1, before the model's own shift of it."""

    AUTO = "auto"
    UNIFORM = "uniform"
    LOGIT_NORMAL = "logit-normal"


class Latents(str, Enum):
    """What is taken of the distribution that the VAE's encoder gives."""

    MODE = "mode"
    SAMPLED = "sampled"


class VaeDtype(str, Enum):
    """What the VAE encodes in."""

    AUTO = "auto"
    HOST = "host"


# the line that `--help` shows of each setting
HELP = {
    "kind": "base: 4 tokens of the global embedding; plus: 16 of the grid; full: one for each token of the "
    "encoder; faceid: 4 of a face embedding; for Flux.1 xlabs or instantx, for SD3.5 instantx; for "
    "Qwen-Image, Z-Image and Lumina 2 base or plus (experimental)",
    "tokens": "image tokens of a picture (default: 4, 16 for plus, 128 for instantx, 64 for it on SD3.5)",
    "steps": "steps of the optimizer in all",
    "batch_size": "pictures in a batch of one process",
    "accumulation": "batches for one step",
    "learning_rate": "of all that is trained; prodigy takes 1",
    "weight_decay": "decay of the weights",
    "schedule": "the learning rate after the warm-up",
    "warmup": "steps in which the learning rate rises",
    "drop_text": "how often the caption alone is left out",
    "drop_image": "how often the image prompt alone is left out",
    "drop_both": "how often both are left out; guidance needs it",
    "noise_offset": "a random shift of each channel of the noise, for dark and bright",
    "ema": "decay of averaged weights, which are saved beside the others; 0 for none",
    "max_grad_norm": "norm to which gradients are clipped; 0 for none",
    "precision": "mixed precision; fp16 scales the loss, bf16 is not for SDXL",
    "checkpointing": "compute activations twice instead of keeping them, to save memory",
    "seed": "of all that is drawn: noise, timesteps, order",
    "unet": "what the UNet's weights are held in; auto: as it is loaded",
    "optimizer": "what moves the weights",
    "projection_rate": "learning rate of the projection alone; 0: as learning_rate",
    "min_snr": "gamma of min-SNR weighting of the loss, 5 in its paper; 0 for none",
    "flip": "mirror half of the pictures, with their image prompts",
    "crops": "1: cut at the centre; more: one of so many random places each time",
    "captions": "which of several captions a picture is shown with",
    "latents": "sampled: drawn anew each time, as the published code does",
    "vae": "auto: the VAE encodes in fp32; host: in what ComfyUI chose",
    "lora_rank": "of the LoRA that faceid trains with the adapter, on q, k, v and out of all attention; 0 for none "
    "(default: 128, as published)",
    "timesteps": "of transformers: how t is drawn, before the model's own shift; auto: logit-normal for SD3.5, uniform for "
    "the others",
    "logit_mean": "mean of logit-normal timesteps; over 0 draws more of the noisy ones",
    "logit_std": "standard deviation of logit-normal timesteps",
    "guidance": "what a guidance-distilled Flux.1 is told while it is trained through; 1 in XLabs' trainer, 3.5 in "
    "diffusers'",
}


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the weights; `HELP` says what each setting is. Defaults are the paper's (section 4.1.2), but for `steps`
    and `batch_size`, of which it had 1 M and 8 x 8 GPUs."""

    kind: Variant = Variant.BASE
    tokens: int | None = None
    steps: int = 20_000
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0
    drop_text: float = 0.05
    drop_image: float = 0.05
    drop_both: float = 0.05
    noise_offset: float = 0.0
    ema: float = 0.0
    max_grad_norm: float = 0.0
    precision: Precision = Precision.FULL
    checkpointing: bool = False
    seed: int = 0
    unet: UnetDtype = UnetDtype.AUTO
    optimizer: Optimizer = Optimizer.ADAMW
    projection_rate: float = 0.0
    min_snr: float = 0.0
    flip: bool = False
    crops: int = 1
    captions: CaptionChoice = CaptionChoice.FIRST
    latents: Latents = Latents.MODE
    vae: VaeDtype = VaeDtype.AUTO
    lora_rank: int | None = None
    timesteps: Timesteps = Timesteps.AUTO
    logit_mean: float = 0.0
    logit_std: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        """Raises SettingError for settings that cannot work."""
        if self.kind not in KINDS:
            names = " or ".join(kind.value for kind in KINDS)
            raise SettingError(f"kind is '{self.kind.value}'; adapters that can be trained are {names}.")
        for name in ("steps", "batch_size", "accumulation", "crops"):
            _require(name, getattr(self, name), 1)
        if self.tokens is not None:
            _require("tokens", self.tokens, 1)
        for name in _FROM_0:
            _require(name, getattr(self, name), 0)
        for name in ("drop_text", "drop_image", "drop_both", "ema"):
            _require(name, getattr(self, name), 0, 1)
        _require("logit_mean", self.logit_mean, -_FARTHEST_LOGIT, _FARTHEST_LOGIT)
        dropped = self.drop_text + self.drop_image + self.drop_both
        if dropped > 1:
            raise SettingError(
                f"drop_text, drop_image and drop_both add up to {dropped:g}; a sample gets one of them or none, so together "
                "they must not be over 1. The paper has 0.05 each."
            )
        _require_unet(self.unet, self.precision)
        if self.kind is Variant.FULL and self.tokens is not None:
            raise SettingError(
                f"tokens is {self.tokens} and kind is full, which has one token for each of the encoder's. Leave tokens out."
            )
        if self.lora_rank is not None:
            _require("lora_rank", self.lora_rank, 0)
        if self.lora_rank and self.kind is not Variant.FACEID:
            raise SettingError(
                f"lora_rank is {self.lora_rank} and kind is {self.kind.value}; only faceid has a LoRA. Leave lora_rank out."
            )
        if self.optimizer is Optimizer.PRODIGY and self.learning_rate < _LEAST_FOR_PRODIGY:
            raise SettingError(
                f"learning_rate is {self.learning_rate:g} and optimizer is prodigy, which estimates the rate itself and "
                f"takes this as a factor. Set learning_rate to 1, or to {_LEAST_FOR_PRODIGY:g} at least."
            )
        if self.optimizer is Optimizer.PRODIGY and self.projection_rate:
            raise SettingError(
                "projection_rate is set and optimizer is prodigy, which has one rate for all. Leave it out."
            )

    @property
    def token_count(self) -> int | None:
        """None for full: one for each of the encoder's."""
        return None if self.kind is Variant.FULL else self.tokens or TOKENS[self.kind]

    @property
    def rank(self) -> int:
        """Of the LoRA; 0 for none."""
        default = LORA_RANK if self.kind is Variant.FACEID else 0
        return default if self.lora_rank is None else self.lora_rank

    def lr_at(self, step: int, rate: float = 0.0) -> float:
        """Learning rate of step 0, 1, ...: rises over the warm-up, then follows the schedule. rate: 0 for learning_rate."""
        rate = rate or self.learning_rate
        if step < self.warmup:
            return rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return rate * _DECAY[self.schedule](min(part, 1.0))

    def to_dict(self) -> dict[str, Any]:
        """Values as JSON has them; `from_dict` reads them."""
        return {field.name: _json_value(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """From plain values, such as a config file's. Raises SettingError that names unknown ones."""
        defaults = {field.name: field.default for field in fields(cls)}
        unknown = sorted(set(values) - set(defaults))
        if unknown:
            raise SettingError(
                f"the training config has no {', '.join(unknown)}. Its settings are {', '.join(defaults)}."
            )
        return cls(**{name: typed(name, value, defaults[name]) for name, value in values.items()})

    def differences(self, other: TrainingConfig) -> list[str]:
        """What differs in another config, in words. To resume, only the number of steps may."""
        pairs = [
            (field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        ]
        return [
            f"{name} was {_json_value(a)} and is {_json_value(b)}"
            for name, a, b in pairs
            if a != b and name != "steps"
        ]


def _require(name: str, value: float, least: float, most: float = math.inf) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        allowed = f"from {least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
        raise SettingError(f"{name} is {value}; it must be {allowed}.")


def _require_unet(unet: UnetDtype, precision: Precision) -> None:
    if precision not in _UNET_WITH[unet]:
        allowed = " or ".join(each.value for each in _UNET_WITH[unet])
        raise SettingError(
            f"unet is {unet.value} and precision is {precision.value}; with this unet precision must be {allowed}. Change "
            "one of them, or set unet to auto."
        )


def typed(name: str, value: Any, default: object) -> Any:
    """A plain value as the type of its default. Raises SettingError if it is none."""
    kind: Any = int if default is None else type(default)
    if default is None and value is None:
        return value
    try:
        # YAML reads a plain 'no' as false
        result = kind("no" if value is False and issubclass(kind, Enum) else value)
        fits = isinstance(value, bool) if kind is bool else kind is not int or result == float(str(value))
    except (ValueError, TypeError, OverflowError):
        result, fits = value, False
    if not fits:
        allowed = (
            ", ".join(str(each.value) for each in kind)
            if issubclass(kind, Enum)
            else f"a value of {kind.__name__}"
        )
        raise SettingError(f"{name} is {value!r}; it must be {allowed}.")
    return result


def _json_value(value: object) -> object:
    return value.value if isinstance(value, Enum) else value
