"""Weights of an animation, frame by frame: curves, transitions between reference pictures, and prompt schedules.

A strategy is a dict that nodes pass around and that other packs read; its keys are those of `STRATEGY`.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ....ipadapter_core.errors import SettingError
from ....ipadapter_core.values import numbers

Strategy = Mapping[str, Any]
STRATEGY: dict[str, Any] = {
    "weights": "",
    "timing": "custom",
    "frames": 0,
    "start_frame": 0,
    "end_frame": 9999,
    "add_starting_frames": 0,
    "add_ending_frames": 0,
    "method": "full batch",
    # number of reference pictures
    "frame_count": 0,
}
# (way, n, steps): how far of `way` a curve is at step n of `steps`
Ease = Callable[[float, int, int], float]


def _ease(fraction: Callable[[float], float]) -> Ease:
    return lambda way, n, steps: way * fraction(n / steps)


_EASES: dict[str, Ease] = {
    # in this order it is bit-identical to the pack's
    "linear": lambda way, n, steps: way * n / steps,
    "ease_in_out": _ease(lambda x: (1 - math.cos(x * math.pi)) / 2),
    "ease_in": _ease(lambda x: math.sin(x * math.pi / 2)),
    "ease_out": _ease(lambda x: 1 - math.cos(x * math.pi / 2)),
}
MOST_FRAMES = 100_000
MOST_CHARACTERS = 10_000_000
CUSTOM, RANDOM = "custom", "random"
TIMINGS = (CUSTOM, *_EASES, RANDOM)
FULL, SHIFT, ALTERNATE = METHODS = ("full batch", "shift batches", "alternate batches")


@dataclass(frozen=True)
class FrameSchedule:
    """weights: one for each frame. inverted: those of the second picture in a cross-fade. first, second: index of the
    reference picture of each frame, None for none."""

    weights: list[float]
    inverted: list[float]
    first: list[int] | None = None
    second: list[int] | None = None


def plan(strategy: Strategy, pictures: int = 0, exact: bool = False) -> FrameSchedule:
    """The frames of a strategy over so many reference pictures.

    inverted: the weights mirrored between their least and greatest, for the second picture of a cross-fade.
    exact: as the de-facto pack, which reverses the list instead. What it could not compute is computed here too. Raises
    SettingError for an unknown timing or method, and for too many frames.
    """
    strategy = complete(strategy)
    part = curve(strategy, exact)
    made = _with_ends(_over_pictures(part, pictures, strategy["method"], exact), strategy, pictures)
    inverted = made.weights[::-1] if exact else mirrored(made.weights)
    return replace(made, inverted=inverted)


def complete(strategy: Strategy) -> dict[str, Any]:
    """With every key of STRATEGY; missing ones have their defaults."""
    return {**STRATEGY, **strategy}


def mirrored(weights: Sequence[float]) -> list[float]:
    """greatest - (weight - least) of each weight."""
    least, greatest = min(weights), max(weights)
    return [greatest - (weight - least) for weight in weights]


# --- curves ------------------------------------------------------------------------------------------------------


def curve(strategy: Strategy, exact: bool = False) -> list[float]:
    """Weights of one reference picture's frames. 'custom': as written; else from the first to the last number.

    The weight changes from start_frame to end_frame, and is constant before and after. There are at least two frames.
    exact: start_frame and end_frame may make it longer than `frames`, and 'random' is different each time.
    """
    strategy = complete(strategy)
    timing, values = strategy["timing"], numbers(str(strategy["weights"]), "weights", decimal_comma=False)
    if timing not in TIMINGS:
        raise SettingError(f"unknown timing '{timing}'; choose one of: {', '.join(TIMINGS)}.")
    if timing == CUSTOM:
        return values or [0.0]
    first, last = (values[0], values[-1]) if values else (0.0, 1.0)
    frames = max(int(strategy["frames"]), 2)
    start, end = int(strategy["start_frame"]), min(int(strategy["end_frame"]), frames)
    if not exact:
        start = min(start, frames)
        end = max(end, start)
    made = [first] * start + _change(strategy, first, last, end - start, exact)
    if made and timing != RANDOM:
        made[-1] = last
    return made + [last] * (frames - end)


def _change(strategy: Strategy, first: float, last: float, length: int, exact: bool) -> list[float]:
    if strategy["timing"] == RANDOM:
        draw = random if exact else random.Random(json.dumps(complete(strategy), sort_keys=True, default=str))
        return [draw.uniform(first, last) for _ in range(length)]
    ease, steps = _EASES[strategy["timing"]], max(length - 1, 1)
    return [first + ease(last - first, n, steps) for n in range(length)]


# --- pictures ----------------------------------------------------------------------------------------------------


def _over_pictures(part: list[float], pictures: int, method: str, exact: bool) -> FrameSchedule:
    """`part` for each picture, or for each step from one picture to the next."""
    if method not in METHODS:
        raise SettingError(f"unknown method '{method}'; choose one of: {', '.join(METHODS)}.")
    if len(part) * max(pictures, 1) > MOST_FRAMES:
        raise SettingError(
            f"{len(part)} frames for each of {pictures} pictures came; at most {MOST_FRAMES:,} frames are made in all. Use "
            "fewer frames or pictures."
        )
    if pictures == 0:
        return FrameSchedule(part, [])
    if method == FULL:
        return FrameSchedule(part * pictures, [], _each(range(pictures), part))
    steps = list(range(pictures - 1))
    if pictures == 1 and not exact:
        return FrameSchedule(part, [], _each([0], part), _each([0], part))
    if method == SHIFT:
        return FrameSchedule(part * len(steps), [], _each(steps, part), _each([n + 1 for n in steps], part))
    # `first` holds pictures 0, 2, 4, ... and `second` 1, 3, 5, ..., which fade in and out by turns
    turns = [part, mirrored(part)]
    weights = [weight for n in steps for weight in turns[n % 2]]
    return FrameSchedule(
        weights, [], _each([n + n % 2 for n in steps], part), _each([n + 1 - n % 2 for n in steps], part)
    )


def _each(numbers: Sequence[int], part: list[float]) -> list[int]:
    return [number for number in numbers for _ in part]


def _with_ends(plan: FrameSchedule, strategy: Strategy, pictures: int) -> FrameSchedule:
    """With the first and the last frame repeated; only where there are pictures, as in the de-facto pack."""
    before, after = int(strategy["add_starting_frames"]), int(strategy["add_ending_frames"])
    if not (pictures and plan.weights):
        return plan
    weights = [plan.weights[0]] * before + plan.weights + [plan.weights[-1]] * after
    first, second = (
        None if side is None else [0] * before + side + [pictures - 1] * after
        for side in (plan.first, plan.second)
    )
    return FrameSchedule(weights, [], first, second)


# --- prompts -----------------------------------------------------------------------------------------------------


def prompt_schedule(strategy: Strategy, prompt: str, exact: bool = False) -> str:
    """Lines of text, one for each reference picture, as the keyframes of a prompt schedule: '"0": "a cat",\\n…'.

    With too few lines the last one is repeated. Blank lines are skipped.
    exact: quotes are not escaped, and keys follow the widget `frames` even where it is not used.
    """
    strategy = complete(strategy)
    count = int(strategy["frame_count"])
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not (count and lines):
        return ""
    length = int(strategy["frames"]) if exact else len(curve(strategy))
    before, after = int(strategy["add_starting_frames"]), int(strategy["add_ending_frames"])
    texts = [lines[min(n, len(lines) - 1)] for n in range(count)]
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise SettingError(
            f"the prompt schedule of {count} pictures would have over {MOST_CHARACTERS:,} characters. Use shorter lines."
        )
    keys = [(n * length + before, text) for n, text in enumerate(texts)]
    keys = [(0, texts[0])] * bool(before) + keys + [(count * length + before, texts[-1])] * bool(after)
    return "".join(f'"{frame}": {_quoted(text, exact)},\n' for frame, text in keys)


def _quoted(text: str, exact: bool) -> str:
    return f'"{text}"' if exact else json.dumps(text, ensure_ascii=False)


def combined(*weights: float | Sequence[float]) -> list[float]:
    """Numbers and lists of numbers as one list."""
    return [w for each in weights for w in (each if isinstance(each, Sequence) else [each])]
