"""Weights for animations: the weights and strategy nodes of the de-facto pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.schedules import METHODS, STRATEGY, TIMINGS, combined, complete, plan, prompt_schedule
from .inputs import Compatible
from .settings import exact_legacy

_TEXT = {"multiline": True}
_FRAMES = ("INT", {"default": 0, "min": 0, "max": 9999, "step": 1})
_STRATEGY = ("WEIGHTS_STRATEGY",)


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
        first, second = (
            None if image is None or side is None else image[side] for side in (made.first, made.second)
        )
        return made.weights, made.inverted, len(made.weights), first, second, strategy


def checked(strategy: Any) -> dict[str, Any]:
    """A strategy with every key; the values of those that other packs leave out are the usual ones."""
    if not isinstance(strategy, Mapping):
        raise MismatchError(
            f"weights_strategy is a {type(strategy).__name__}; connect weights_strategy of IPAdapter Weights."
        )
    return complete(strategy)


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
