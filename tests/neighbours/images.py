"""Graphs with another pack that adds images itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from support import peer, tiny
from torch import nn

from . import packs
from .measure import Graph

# in the slots of SD1.5, as these packs number them
_SLOTS = [
    *(("input", n) for n in (1, 2, 4, 5, 7, 8)),
    *(("output", n) for n in range(3, 12)),
    ("middle", 0),
]


def joined(pack: str, module_end: str, function: str, layers_name: str):
    """InstantID and PuLID: their own patch in every slot, or joined to what is there, over small random layers."""

    def patch(model: Any, graph: Graph) -> Any:
        packs.load(pack)
        (module,) = [m for name, m in sys.modules.items() if name.endswith(module_end)]
        clone, layers = model.clone(), _layers(graph.family)
        tokens = torch.randn(2, 1, 4, graph.family.context, generator=torch.Generator().manual_seed(51))
        for number, slot in enumerate(_SLOTS):
            given = {"module_key": str(number * 2 + 1), layers_name: layers, "weight": 0.7, "mask": None}
            given |= {"cond": tokens[0], "uncond": tokens[1], "sigma_start": 1e9, "sigma_end": 0.0}
            getattr(module, function)(clone, given, slot)
        return clone

    return patch


def _layers(family: tiny.Family) -> Any:
    generator = torch.Generator().manual_seed(52)
    kvs = {}
    for number, width in enumerate(tiny.site_widths(family)):
        for side in "kv":
            linear = nn.Linear(family.context, width, bias=False).requires_grad_(False)
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) / family.context**0.5)
            kvs[f"{number * 2 + 1}_to_{side}_ip"] = linear
    return SimpleNamespace(ip_layers=SimpleNamespace(to_kvs=kvs))


def de_facto(model: Any, graph: Graph) -> Any:
    """IPAdapter Advanced of the de-facto pack, with an adapter and a picture of its own."""
    setup = peer.setup(graph.family.name, "base")
    given = {"ipadapter": setup.adapter, "image": tiny.picture(8, 64, 64), "clip_vision": setup.encoder}
    return packs.node("ComfyUI_IPAdapter_plus", "IPAdapterAdvanced", model=model, **given)[0]
