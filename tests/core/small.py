"""Small random adapters of the released layouts, as tensors and as modules: milliseconds, no host."""

from __future__ import annotations

import math

import torch
from image_prompt.ipadapter_core.adapter import Adapter, KeysValues
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from support.layouts import Table, base, full, keys_values, plus
from torch import Tensor

FEATURE, CONTEXT, WIDTHS = 12, 24, (16, 32, 16)
IMAGE_PROJ: dict[str, Table] = {
    "base": base(FEATURE, CONTEXT),
    "plus": plus(FEATURE, CONTEXT, width=16, heads=2, tokens=3, depth=2),
    "full": full(FEATURE, CONTEXT),
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(table: Table, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of unit gain."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: (torch.randn(shape, generator=generator) / math.sqrt(shape[-1])).to(dtype)
        for key, shape in table.items()
    }


def flat(kind: str = "base", dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """An adapter in the flat release layout."""
    return filled(IMAGE_PROJ[kind] | keys_values(WIDTHS, CONTEXT), dtype, seed)


def nested(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The same in the nested layout of the released .bin files."""
    roles: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        role, name = key.split(".", 1)
        roles[role][name] = tensor
    return roles


def checkpoint(kind: str = "base", dtype: torch.dtype = torch.float32, seed: int = 0) -> Checkpoint:
    return Checkpoint(f"small-{kind}.safetensors", **nested(flat(kind, dtype, seed)))


class CountingAdapter(Adapter):
    """An adapter that counts how often K'/V' were computed."""

    computed = 0

    def keys_values(self, tokens: Tensor) -> KeysValues:
        self.computed += 1
        return super().keys_values(tokens)


def adapter(kind: str = "base", seed: int = 0) -> CountingAdapter:
    file = checkpoint(kind, seed=seed)
    made = CountingAdapter(file)
    made.load_checkpoint(file)
    return made


def naive_attention(q: Tensor, keys: Tensor, values: Tensor, heads: int = 1) -> Tensor:
    """softmax(q Kᵀ/√d) V written out. q (B or 1, N, h·d), keys and values (B, T, h·d) -> (B, N, h·d)."""
    q, k, v = (t.double().unflatten(-1, (heads, -1)) for t in (q, keys, values))
    scores = torch.einsum("bnhd,bthd->bhnt", q.expand(k.shape[0], -1, -1, -1), k) / math.sqrt(k.shape[-1])
    return torch.einsum("bhnt,bthd->bnhd", scores.softmax(-1), v).flatten(-2).float()
