"""Weights, picture by picture, of an animation: curves over frames, how reference pictures follow each other, prompts.

A strategy is a plain dict that nodes hand on, and that other packs read; its keys are those of `STRATEGY`.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ....ipadapter_core.errors import MismatchError
from ....ipadapter_core.values import numbers

Strategy = Mapping[str, Any]
STRATEGY: dict[str, Any] = {
    "weights": "",  # text
    "timing": "custom",
    "frames": 0,
    "start_frame": 0,
    "end_frame": 9999,
    "add_starting_frames": 0,
    "add_ending_frames": 0,
    "method": "full batch",
    "frame_count": 0,  # number of reference pictures
}
# how far of `way` a curve has come at step n of `steps`
Ease = Callable[[float, int, int], float]


def _ease(fraction: Callable[[float], float]) -> Ease:
    return lambda way, n, steps: way * fraction(n / steps)


_EASES: dict[str, Ease] = {
    "linear": lambda way, n, steps: way * n / steps,  # in this order: to the last bit as the pack's
    "ease_in_out": _ease(lambda x: (1 - math.cos(x * math.pi)) / 2),
    "ease_in": _ease(lambda x: math.sin(x * math.pi / 2)),
    "ease_out": _ease(lambda x: 1 - math.cos(x * math.pi / 2)),
}
MOST_FRAMES = 100_000
MOST_LETTERS = 10_000_000
CUSTOM, RANDOM = "custom", "random"
TIMINGS = (CUSTOM, *_EASES, RANDOM)
FULL, SHIFT, ALTERNATE = METHODS = ("full batch", "shift batches", "alternate batches")


@dataclass(frozen=True)
class Schedule:
    """weights: one for each frame. first, second: number of the reference picture of each frame, None for none."""

    weights: list[float]
    inverted: list[float]
    first: list[int] | None = None
    second: list[int] | None = None


def plan(strategy: Strategy, pictures: int = 0, exact: bool = False) -> Schedule:
    """The frames of a strategy over so many reference pictures.

    inverted: the weights mirrored between their least and greatest, for the second picture of a cross-fade.
    exact: as the de-facto pack, which gives the list backwards instead. What it could not compute, we do here too.
    """
    strategy = complete(strategy)
    part = curve(strategy, exact)
    made = _with_ends(_over_pictures(part, pictures, strategy["method"], exact), strategy, pictures)
    inverted = made.weights[::-1] if exact else mirrored(made.weights)
    return replace(made, inverted=inverted)


def complete(strategy: Strategy) -> dict[str, Any]:
    """With every key of STRATEGY; what is left out is as usual."""
    return {**STRATEGY, **strategy}


def mirrored(weights: Sequence[float]) -> list[float]:
    """Each weight mirrored between the least and the greatest of them."""
    least, greatest = min(weights), max(weights)
    return [greatest - (weight - least) for weight in weights]


# --- curves ------------------------------------------------------------------------------------------------------


def curve(strategy: Strategy, exact: bool = False) -> list[float]:
    """Weights of one reference picture's frames. 'custom': as written; else from the first to the last number.

    start_frame and end_frame bound the change; before and after, the weight stands. There are at least two frames.
    exact: start_frame and end_frame may make it longer than `frames`, and 'random' is different each time.
    """
    strategy = complete(strategy)
    timing, values = strategy["timing"], numbers(str(strategy["weights"]), "weights", decimal_comma=False)
    if timing not in TIMINGS:
        raise MismatchError(f"unknown timing '{timing}'; choose one of: {', '.join(TIMINGS)}.")
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


def _over_pictures(part: list[float], pictures: int, method: str, exact: bool) -> Schedule:
    """`part` for each picture, or for each step from one picture to the next."""
    if method not in METHODS:
        raise MismatchError(f"unknown method '{method}'; choose one of: {', '.join(METHODS)}.")
    if len(part) * max(pictures, 1) > MOST_FRAMES:
        raise MismatchError(
            f"{len(part)} frames for each of {pictures} pictures came; at most {MOST_FRAMES:,} frames are made in all. Use "
            "fewer frames or pictures."
        )
    if pictures == 0:
        return Schedule(part, [])
    if method == FULL:
        return Schedule(part * pictures, [], _each(range(pictures), part))
    steps = list(range(pictures - 1))
    if pictures == 1 and not exact:
        return Schedule(part, [], _each([0], part), _each([0], part))
    if method == SHIFT:
        return Schedule(part * len(steps), [], _each(steps, part), _each([n + 1 for n in steps], part))
    # pictures 1, 3, 5, ... come and go on one side, 2, 4, 6, ... on the other
    turns = [part, mirrored(part)]
    weights = [weight for n in steps for weight in turns[n % 2]]
    return Schedule(
        weights, [], _each([n + n % 2 for n in steps], part), _each([n + 1 - n % 2 for n in steps], part)
    )


def _each(numbers: Sequence[int], part: list[float]) -> list[int]:
    return [number for number in numbers for _ in part]


def _with_ends(plan: Schedule, strategy: Strategy, pictures: int) -> Schedule:
    """The first and the last frame held for longer; only where there are pictures, as in the de-facto pack."""
    before, after = int(strategy["add_starting_frames"]), int(strategy["add_ending_frames"])
    if not (pictures and plan.weights):
        return plan
    weights = [plan.weights[0]] * before + plan.weights + [plan.weights[-1]] * after
    first, second = (
        None if side is None else [0] * before + side + [pictures - 1] * after
        for side in (plan.first, plan.second)
    )
    return Schedule(weights, [], first, second)


# --- prompts -----------------------------------------------------------------------------------------------------


def prompt_schedule(strategy: Strategy, prompt: str, exact: bool = False) -> str:
    """Lines of text, one for each reference picture, as the keyframes of a prompt schedule: '"0": "a cat",\\n…'.

    Too few lines: the last one again. Blank ones do not count.
    exact: quotes are not escaped, and keys follow the widget `frames` even where it does not count.
    """
    strategy = complete(strategy)
    count = int(strategy["frame_count"])
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not (count and lines):
        return ""
    length = int(strategy["frames"]) if exact else len(curve(strategy))
    before, after = int(strategy["add_starting_frames"]), int(strategy["add_ending_frames"])
    texts = [lines[min(n, len(lines) - 1)] for n in range(count)]
    if sum(map(len, texts)) > MOST_LETTERS:
        raise MismatchError(
            f"the prompt schedule of {count} pictures would have over {MOST_LETTERS:,} letters. Use shorter lines."
        )
    keys = [(n * length + before, text) for n, text in enumerate(texts)]
    keys = [(0, texts[0])] * bool(before) + keys + [(count * length + before, texts[-1])] * bool(after)
    return "".join(f'"{frame}": {_quoted(text, exact)},\n' for frame, text in keys)


def _quoted(text: str, exact: bool) -> str:
    return f'"{text}"' if exact else json.dumps(text, ensure_ascii=False)


def combined(*weights: float | Sequence[float]) -> list[float]:
    """One list of numbers and lists of numbers."""
    return [w for each in weights for w in (each if isinstance(each, Sequence) else [each])]
