"""The training config: what decides the weights, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from ..errors import SettingError
from ..spec import Variant

KINDS = (Variant.BASE, Variant.PLUS)
TOKENS = {Variant.BASE: 4, Variant.PLUS: 16}


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


@dataclass(frozen=True)
class TrainingConfig:
    """Defaults are the paper's (section 4.1.2), but for `steps` and `batch_size`, of which it had 1 M and 8 x 8 GPUs.

    kind: base or plus. tokens: per picture, None for the paper's 4 or 16. batch_size: of one process.
    accumulation: batches for one step. drop_*: probabilities, by one random number a sample, of dropping one condition or
    both. noise_offset: scale of one random number per channel that is added to the noise. ema: decay of the averaged
    weights, 0 for none. max_grad_norm: 0 for no clipping. checkpointing: of gradients, activations are computed twice
    instead of kept. unet: dtype of the UNet, auto for as it was loaded.
    """

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

    def __post_init__(self) -> None:
        """Raises SettingError for settings that cannot work."""
        if self.kind not in KINDS:
            names = " or ".join(kind.value for kind in KINDS)
            raise SettingError(f"kind is '{self.kind.value}'; adapters that can be trained are {names}.")
        for name in ("steps", "batch_size", "accumulation"):
            _require(name, getattr(self, name), 1)
        if self.tokens is not None:
            _require("tokens", self.tokens, 1)
        for name in ("learning_rate", "weight_decay", "warmup", "noise_offset", "max_grad_norm"):
            _require(name, getattr(self, name), 0)
        for name in ("drop_text", "drop_image", "drop_both", "ema"):
            _require(name, getattr(self, name), 0, 1)
        dropped = self.drop_text + self.drop_image + self.drop_both
        if dropped > 1:
            raise SettingError(
                f"drop_text, drop_image and drop_both add up to {dropped:g}; a sample gets one of them or none, so together "
                "they must not be over 1. The paper has 0.05 each."
            )
        _require_unet(self.unet, self.precision)

    @property
    def token_count(self) -> int:
        return self.tokens or TOKENS[self.kind]

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: rises over the warm-up, then follows the schedule."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * _DECAY[self.schedule](min(part, 1.0))

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
