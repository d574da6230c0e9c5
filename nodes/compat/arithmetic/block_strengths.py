"""Strength by block between two values, as the XLabs pack's advanced node names it."""

from __future__ import annotations

import math
from collections.abc import Callable

# (block, blocks) -> how far from the first strength to the second, 0..1.
CURVES: dict[str, Callable[[int, int], float]] = {
    "Linear": lambda block, blocks: _ramp(block, blocks),
    "First half": lambda block, blocks: _ramp(block, blocks // 2),
    "Second half": lambda block, blocks: _ramp(block - (blocks - blocks // 2), blocks // 2),
    "Sigmoid": lambda block, blocks: _sigmoid_ramp(block, blocks),
}


def block_strengths(curve: str, first: float, last: float, blocks: int) -> list[float]:
    """Of every block. 'Sigmoid' goes from the first to the last; the pack itself begins and ends half of the way lower."""
    return [first + (last - first) * CURVES[curve](block, blocks) for block in range(blocks)]


def _ramp(block: int, blocks: int) -> float:
    return min(max(block / max(blocks - 1, 1), 0.0), 1.0)


def _sigmoid_ramp(block: int, blocks: int) -> float:
    start, here, end = (1 / (1 + math.exp(-8 * (depth - 0.5))) for depth in (0, _ramp(block, blocks), 1))
    return (here - start) / (end - start)
