"""Adapters as the host holds them, and counters around them."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
from image_prompt import host
from image_prompt.ipadapter_core.attention import AtSite
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from . import tiny


def make_adapter(kind: str, family: tiny.Family, seed: int = 7) -> host.HostAdapter:
    """A random adapter of this kind for the family's small UNet."""
    tensors = tiny.adapter_tensors(kind, family, seed)
    return host.HostAdapter(
        Checkpoint(f"{kind}-{seed}.safetensors", tensors["image_proj"], tensors["ip_adapter"])
    )


_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense.default, _aten.item.default, _aten.is_nonzero.default}


class Reads(TorchDispatchMode):
    """Counts what makes a GPU stop: numbers read from a tensor (`.item()`, float(), bool())."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in _READS
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_residuals(monkeypatch):
    """Counter of residuals really added, by (h·w, width) of the site; `.total()` is the number of calls."""
    calls: Counter = Counter()
    add_to = AtSite.add_to

    def counting(self, out, q, *args, **options):
        calls[id(self)] += 1
        return add_to(self, out, q, *args, **options)

    monkeypatch.setattr(AtSite, "add_to", counting)
    yield calls
    monkeypatch.setattr(AtSite, "add_to", add_to)
