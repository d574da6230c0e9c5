"""Regions as text: boxes and strokes in fractions of a picture, what each covers, and who has what several cover.

    box 0,0,0.5,1 weight 0.8 soft 0.05; stroke 0.2 0.6,0.5 0.9,0.5 erase 0.05 0.7,0.4

is two regions. box left,top,width,height. stroke and erase: the width of the brush, then the points of its way. Widths and
the soft edge are fractions of the picture's shorter side. Shapes act in the order in which they stand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError

MOST_REGIONS, MOST_POINTS = 8, 2048
_LONGEST = 1024  # side in pixels at which regions are drawn; larger pictures get them scaled
_FAR = 1e6  # pixels
_WORDS = ("box", "stroke", "erase", "weight", "soft")
_EXPECTED = "Write a region as 'box 0,0,0.5,1 weight 0.8 soft 0.05' or 'stroke 0.2 0.6,0.5 0.9,0.5', and ';' between regions"
_SEPARATORS = re.compile(r"[;\n]")


class Overlap(str, Enum):
    """Who has what several regions cover."""

    LATER = "later on top"  # the last of them
    SHARED = "shared"  # each its share, so that they add up to 1
    ADDED = "added"  # each all of it


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Stroke:
    width: float
    points: tuple[tuple[float, float], ...]
    erases: bool = False


@dataclass(frozen=True)
class DrawnRegion:
    """weight: of its image prompt. soft: width of the edge, over which the mask falls from 1 to 0."""

    shapes: tuple[Box | Stroke, ...] = ()
    weight: float = 1.0
    soft: float = 0.0


@dataclass
class _Parts:
    shapes: list[Box | Stroke] = field(default_factory=list[Box | Stroke])
    settings: dict[str, float] = field(default_factory=dict[str, float])


def parse_regions(text: str) -> tuple[DrawnRegion, ...]:
    """The regions of a text, as above. Raises SettingError."""
    regions = [_region(part.split(), n) for n, part in enumerate(_written(text), 1)]
    if len(regions) > MOST_REGIONS:
        raise SettingError(f"there are {len(regions)} regions, more than {MOST_REGIONS}. Leave some out.")
    strokes = [shape for region in regions for shape in region.shapes if isinstance(shape, Stroke)]
    if (points := sum(len(stroke.points) for stroke in strokes)) > MOST_POINTS:
        raise SettingError(
            f"the strokes have {points} points, more than {MOST_POINTS}. Draw fewer, or use boxes."
        )
    return tuple(regions)


def _written(text: str) -> list[str]:
    return [part for part in _SEPARATORS.split(text) if part.strip()]


def _region(words: list[str], n: int) -> DrawnRegion:
    if words[0] not in _WORDS:
        raise _wrong(n, words[0])
    parts, start = _Parts(), 0
    for end in range(1, len(words) + 1):
        if end == len(words) or words[end] in _WORDS:
            _add(parts, words[start], words[start + 1 : end], n)
            start = end
    return DrawnRegion(tuple(parts.shapes), **parts.settings)


def _add(parts: _Parts, word: str, given: list[str], n: int) -> None:
    shown = " ".join([word, *given])
    numbers = [_numbers(each, shown, n) for each in given]
    sizes = [len(each) for each in numbers]
    if word == "box" and sizes == [4]:
        parts.shapes.append(_checked_box(numbers[0], shown, n))
    elif word in ("stroke", "erase") and sizes[:1] == [1] and {*sizes[1:]} == {2}:
        width = _within(numbers[0][0], 0, 1, shown, n)
        points = tuple((_within(x, -1, 2, shown, n), _within(y, -1, 2, shown, n)) for x, y in numbers[1:])
        parts.shapes.append(Stroke(width, points, word == "erase"))
    elif word in ("weight", "soft") and sizes == [1]:
        low, high = (-10, 10) if word == "weight" else (0, 1)
        parts.settings[word] = _within(numbers[0][0], low, high, shown, n)
    else:
        raise _wrong(n, shown)


def _checked_box(numbers: list[float], shown: str, n: int) -> Box:
    left, top, width, height = numbers
    ends = [_within(end, -1, 2, shown, n) for end in (left, top, left + width, top + height)]
    if width <= 0 or height <= 0:
        raise _wrong(n, shown)
    return Box(ends[0], ends[1], width, height)


def _numbers(word: str, shown: str, n: int) -> list[float]:
    try:
        return [float(number) for number in word.split(",")]
    except ValueError:
        raise _wrong(n, shown) from None


def _within(value: float, low: float, high: float, shown: str, n: int) -> float:
    if not low <= value <= high:
        raise SettingError(
            f"region {n} has '{_short(shown)}': {value:g} is not in {low:g}..{high:g}. {_EXPECTED}."
        )
    return value


def _wrong(n: int, shown: str) -> SettingError:
    return SettingError(f"region {n} has '{_short(shown)}'. {_EXPECTED}.")


def _short(shown: str) -> str:
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# --- what regions cover --------------------------------------------------------------------------------------------


def region_masks(
    regions: Sequence[DrawnRegion], height: int, width: int, overlap: Overlap = Overlap.LATER
) -> Tensor:
    """(n, height, width) in 0..1. Edges of neighbours that share a border add up to 1, soft ones too."""
    if not regions:
        return torch.zeros(0, height, width)
    scale = min(1.0, _LONGEST / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    masks = _settled(torch.stack([_coverage(region, *size) for region in regions]), overlap)
    if size == (height, width):
        return masks
    return F.interpolate(masks[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def _settled(masks: Tensor, overlap: Overlap) -> Tensor:
    if overlap is Overlap.ADDED:
        return masks
    if overlap is Overlap.SHARED:
        return masks / masks.sum(0).clamp_min(1)
    left = torch.ones_like(masks[0])
    settled: list[Tensor] = []
    for mask in masks.flip(0):
        settled.append(mask * left)
        left = left * (1 - mask)
    return torch.stack(settled).flip(0)


def _coverage(region: DrawnRegion, height: int, width: int) -> Tensor:
    """(height, width): 1 inside, 0 outside, linear over the edge, by the signed distance in pixels from it."""
    edge = max(region.soft * min(height, width), 1.0)
    distance = torch.full((height, width), _FAR)
    for shape in region.shapes:
        if isinstance(shape, Box):
            distance = torch.minimum(distance, _box_distance(shape, height, width))
        else:
            _draw_stroke(distance, shape, edge)
    return (0.5 - distance / edge).clamp(0, 1)


def _box_distance(box: Box, height: int, width: int) -> Tensor:
    """Negative inside. A side on the picture's own border is no edge."""
    x = _outside(box.left, box.left + box.width, width)[None, :]
    y = _outside(box.top, box.top + box.height, height)[:, None]
    return torch.hypot(x.clamp_min(0), y.clamp_min(0)) + torch.maximum(x, y).clamp_max(0)


def _outside(low: float, high: float, size: int) -> Tensor:
    """(size,): how far each pixel's centre lies outside of [low, high], negative inside."""
    at = torch.arange(size) + 0.5
    before = low * size - at if low > 0 else torch.full((size,), -_FAR)
    after = at - high * size if high < 1 else torch.full((size,), -_FAR)
    return torch.maximum(before, after)


def _draw_stroke(distance: Tensor, stroke: Stroke, edge: float) -> None:
    """In place: each piece of the way changes what lies within reach of it."""
    height, width = distance.shape
    radius = stroke.width * min(height, width) / 2
    reach = radius + edge
    way = [(x * width, y * height) for x, y in stroke.points]
    for (ax, ay), (bx, by) in zip(way, way[1:] or way, strict=False):
        rows = slice(max(0, math.floor(min(ay, by) - reach)), max(0, math.ceil(max(ay, by) + reach)))
        columns = slice(max(0, math.floor(min(ax, bx) - reach)), max(0, math.ceil(max(ax, bx) + reach)))
        part = distance[rows, columns]
        y = torch.arange(part.shape[0])[:, None] + rows.start + 0.5 - ay
        x = torch.arange(part.shape[1])[None, :] + columns.start + 0.5 - ax
        along_x, along_y = bx - ax, by - ay
        along = ((x * along_x + y * along_y) / max(along_x**2 + along_y**2, 1e-9)).clamp(0, 1)
        away = torch.hypot(x - along * along_x, y - along * along_y) - radius
        part.copy_(torch.maximum(part, -away) if stroke.erases else torch.minimum(part, away))
