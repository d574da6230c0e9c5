"""Exact counters: tensor operations, host reads, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from support.prompts import Reads
from torch import Tensor, nn


@dataclass(frozen=True)
class Count:
    """all: operations dispatched. real: those of them that are not views. reads: numbers read from the device."""

    all: int
    real: int
    reads: int

    def beyond(self, base: Count) -> Count:
        return Count(self.all - base.all, self.real - base.real, self.reads - base.reads)


class Operations(Reads):
    """Counts every operation that reaches a kernel, and which of them only look at memory in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.all = self.real = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all += 1
        self.real += not is_view(func)
        return super().__torch_dispatch__(func, types, args, kwargs)


def is_view(func: Any) -> bool:
    """Whether what comes out shares the memory of what went in, unchanged."""
    if func is torch.ops.aten._unsafe_view.default:  # a reshape without the bookkeeping
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def count(call: Callable[[], Any]) -> Count:
    """Counts of the second call: the first one makes what is made once.

    Without gradients, but not in inference mode: there composite operations reach the counter whole.
    """
    with torch.no_grad():
        call()
        with Operations() as counter:
            call()
    return Count(counter.all, counter.real, counter.count)


def tensors_in(*things: Any) -> Iterable[Tensor]:
    """All tensors in modules, dicts and sequences of them."""
    for thing in things:
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, nn.Module):
            yield from (*thing.parameters(), *thing.buffers())
        elif isinstance(thing, Mapping):
            yield from tensors_in(*thing.values())
        elif isinstance(thing, (list, tuple)):
            yield from tensors_in(*thing)


def size_in_bytes(tensors: Iterable[Tensor]) -> int:
    """Each tensor object once. Two that share memory here, on the CPU, would not on a device they are loaded to."""
    unique = {id(tensor): tensor for tensor in [*tensors]}
    return sum(tensor.numel() * tensor.element_size() for tensor in unique.values())
