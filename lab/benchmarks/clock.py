"""Times of calls that take turns, on a CPU or by a GPU's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]


def interleaved(calls: Sequence[Call], rounds: int, device: torch.device) -> list[list[float]]:
    """Milliseconds of each call in so many rounds: one of each a round, in an order that is rotated by one every round."""
    clock = _on_gpu if device.type == "cuda" else _on_cpu
    times: list[list[float]] = [[] for _ in calls]
    # three rounds of warm-up
    for number in range(-3, rounds):
        for turn in range(len(calls)):
            at = (number + turn) % len(calls)
            spent = clock(calls[at])
            if number >= 0:
                times[at].append(spent)
    return times


def _on_cpu(call: Call) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _on_gpu(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
