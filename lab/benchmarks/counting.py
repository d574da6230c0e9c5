"""Exact counters: tensor operations, device-to-host syncs, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from support.prompts import Reads
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

# of a site's residual: what the prompt itself keeps in the host's memory
SOURCES = {"keys", "values", "weight", "region"}


@dataclass(frozen=True)
class Count:
    """all: operations dispatched. real: those that compute or move something. reads: device-to-host syncs.

    peak: most bytes of intermediate tensors that were alive together.
    """

    all: int
    real: int
    reads: int
    peak: int

    def beyond(self, base: Count) -> Count:
        pairs = zip(astuple(self), astuple(base), strict=True)
        return Count(*(own - other for own, other in pairs))


class Operations(Reads):
    """Counts every operation that is dispatched, those of them that are views, and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.all = self.real = self.peak = 0
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all += 1
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.real += not (func is torch.ops.aten.empty.memory_format or is_view(func, args, out))
        if all(result.alias_info is None for result in func._schema.returns):
            storages = [tensor.untyped_storage() for tensor in tensors_in(out)]
            self._alive |= {StorageWeakRef(storage): storage.nbytes() for storage in storages}
        self._alive = {storage: size for storage, size in self._alive.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self._alive.values()))
        return out


def is_view(func: Any, args: Any, out: Any) -> bool:
    """Whether what comes out shares the memory of what went in, unchanged. Some (reshape) copy where they must."""
    # a reshape without the bookkeeping
    if func is torch.ops.aten._unsafe_view.default:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    may = any(alias is not None and not alias.is_write for alias in aliases)
    if not (may and isinstance(out, Tensor) and args and isinstance(args[0], Tensor)):
        return may
    return out.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()


def count(call: Callable[[], Any]) -> Count:
    """Counts of the second call: the first one computes what is cached.

    Without gradients, but not in inference mode: there composite operations reach the counter whole.
    """
    with torch.no_grad():
        call()
        with Operations() as counter:
            call()
    return Count(counter.all, counter.real, counter.count, counter.peak)


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
