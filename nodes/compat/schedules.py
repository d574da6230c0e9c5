"""Weights for animations: the weights and strategy nodes of the de-facto pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ...ipadapter_core import values
from ...ipadapter_core.errors import MismatchError, SettingError
from .arithmetic.schedules import (
    METHODS,
    MOST_FRAMES,
    STRATEGY,
    TIMINGS,
    combined,
    complete,
    plan,
    prompt_schedule,
)
from .inputs import Compatible
from .settings import exact_legacy

MOST_BYTES = 8 << 30
_TEXT = {"multiline": True}
_FRAMES = ("INT", {"default": 0, "min": 0, "max": 9999, "step": 1})
_STRATEGY = ("WEIGHTS_STRATEGY",)
_PICTURES = partial(values.whole, low=0, high=MOST_FRAMES)


class WeightsNode(Compatible):
    TITLE = "IPAdapter Weights"
    DESCRIPTION = (
        "A weight for each frame of an animation, and which reference pictures each frame fades between."
    )
    SEARCH_ALIASES = ["weights schedule", "animation weights", "cross fade"]
    RETURN_TYPES = ("FLOAT", "FLOAT", "INT", "IMAGE", "IMAGE", "WEIGHTS_STRATEGY")
    RETURN_NAMES = ("weights", "weights_invert", "total_frames", "image_1", "image_2", "weights_strategy")
    FUNCTION = "weights"
    REQUIRED = "weights timing frames start_frame end_frame add_starting_frames add_ending_frames method"
    OPTIONAL = "image"
    # the pictures only pass through
    KINDS = {"image": partial(values.pictures, alpha=True)}
    OWN = {
        "weights": ("STRING", {"default": "1.0, 0.0", **_TEXT}),
        "timing": (list(TIMINGS), {"default": "linear"}),
        "frames": _FRAMES,
        "start_frame": _FRAMES,
        "end_frame": ("INT", {**_FRAMES[1], "default": 9999}),
        "add_starting_frames": _FRAMES,
        "add_ending_frames": _FRAMES,
        "method": (list(METHODS), {"default": METHODS[0]}),
    }

    def weights(
        self,
        weights: str = "",
        timing: str = "custom",
        frames: int = 0,
        start_frame: int = 0,
        end_frame: int = 9999,
        add_starting_frames: int = 0,
        add_ending_frames: int = 0,
        method: str = "full batch",
        weights_strategy: Mapping[str, Any] | None = None,
        image: Tensor | None = None,
    ) -> tuple[list[float], list[float], int, Tensor | None, Tensor | None, dict[str, Any]]:
        pictures = 0 if image is None else len(image)
        widgets = (
            weights,
            timing,
            frames,
            start_frame,
            end_frame,
            add_starting_frames,
            add_ending_frames,
            method,
        )
        strategy = dict(zip(STRATEGY, (*widgets, pictures), strict=True))
        if weights_strategy is not None:
            strategy = checked(weights_strategy)
        made = plan(strategy, pictures, exact_legacy())
        sides = (made.first, made.second)
        if image is not None:
            _require_room(image, sum(len(side) for side in sides if side is not None))
        first, second = (None if image is None or side is None else image[side] for side in sides)
        return made.weights, made.inverted, len(made.weights), first, second, strategy


def _require_room(image: Tensor, frames: int) -> None:
    """Every frame is a copy of its picture: refuse more than a number in a widget should allocate."""
    size = frames * image[0].numel() * image.element_size()
    if size > MOST_BYTES:
        raise SettingError(
            f"{frames} frames of {image.shape[2]} x {image.shape[1]} pixels are {size / 2**30:.0f} GB of pictures; at most "
            f"{MOST_BYTES >> 30} GB are made at once. Use fewer frames or smaller pictures."
        )


def checked(strategy: Any) -> dict[str, Any]:
    """A strategy with every key, checked; keys that other packs leave out get their defaults."""
    if not isinstance(strategy, Mapping):
        raise MismatchError(
            f"weights_strategy is {values.described(strategy)}; connect weights_strategy of IPAdapter Weights."
        )
    given = complete(strategy)
    checks = {key: WeightsNode.check_of(key, kind) for key, kind in WeightsNode.OWN.items()}
    checks |= {"weights": lambda written, _: str(written), "frame_count": _PICTURES}
    return given | {key: check(given[key], f"weights_strategy: {key}") for key, check in checks.items()}


class FromStrategyNode(WeightsNode):
    TITLE = "IPAdapter Weights From Strategy"
    DESCRIPTION = "The weights of a strategy again, over other reference pictures."
    SEARCH_ALIASES = ["weights strategy"]
    REQUIRED = "weights_strategy"
    OWN = {"weights_strategy": _STRATEGY}


class PromptScheduleNode(Compatible):
    TITLE = "Prompt Schedule From Weights Strategy"
    DESCRIPTION = "A line of text for each reference picture, as keyframes for a prompt schedule node."
    SEARCH_ALIASES = ["prompt schedule", "prompt travel"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("prompt_schedule",)
    FUNCTION = "prompt_schedule"
    REQUIRED = "weights_strategy prompt"
    OWN = {"weights_strategy": _STRATEGY, "prompt": ("STRING", {"default": "", **_TEXT})}

    def prompt_schedule(self, weights_strategy: Mapping[str, Any], prompt: str = "") -> tuple[str]:
        return (prompt_schedule(checked(weights_strategy), prompt, exact_legacy()),)


class CombineWeightsNode(Compatible):
    TITLE = "IPAdapter Combine Weights"
    DESCRIPTION = "Puts two lists of weights one after the other."
    SEARCH_ALIASES = ["combine weights", "join weights"]
    RETURN_TYPES = ("FLOAT", "INT")
    RETURN_NAMES = ("weights", "count")
    FUNCTION = "combine"
    REQUIRED = "weights_1 weights_2"
    LISTS = REQUIRED
    OWN = dict.fromkeys(REQUIRED.split(), ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05}))

    def combine(
        self, weights_1: float | Sequence[float], weights_2: float | Sequence[float]
    ) -> tuple[list[float], int]:
        weights = combined(weights_1, weights_2)
        return weights, len(weights)


CLASSES = {
    "IPAdapterWeights": WeightsNode,
    "IPAdapterWeightsFromStrategy": FromStrategyNode,
    "IPAdapterPromptScheduleFromWeightsStrategy": PromptScheduleNode,
    "IPAdapterCombineWeights": CombineWeightsNode,
}
