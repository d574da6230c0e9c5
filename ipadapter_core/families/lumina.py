"""Lumina 2 and Z-Image: transformers whose blocks run over text and image in one stream (NextDiT).

As ComfyUI's comfy/ldm/lumina names their parts. Nobody released an adapter for them: those trained with this pack enter at
every block of the one stream, and at none of those that refine text or image before it. They bring tokens of a width of
their own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .family import PATCH, Architecture, Counts, Family, patch_grid
from .site import Exchanged, Site
from .weights import weight_of

LAYER = "layer"
Z_IMAGE_LAYERS, LUMINA2_LAYERS = 30, 26


def find_sites(network: nn.Module, _: Exchanged) -> tuple[Site, ...]:
    """Every block of the one stream. None of a network with larger tokens, which works on pixels."""
    parts: Any = network
    layers = getattr(network, "layers", None)
    if not layers or not hasattr(network, "noise_refiner") or parts.patch_size != PATCH:
        return ()
    return tuple(_site(n, getattr(layer, "_orig_mod", layer).attention) for n, layer in enumerate(layers))


def _site(number: int, attention: Any) -> Site:
    heads: int = attention.n_local_heads
    width = heads * attention.head_dim
    return Site(f"{LAYER} {number}", LAYER, number, 0, width, 0, heads, f"layers.{number}", "NextDiT")


def text_matrices(network: nn.Module, site: Site) -> tuple[Tensor, Tensor]:
    """Of the one stream, for text and image alike; where several heads share one of keys and values, it is repeated."""
    attention: Any = network.get_submodule(f"{site.path}.attention")
    size = attention.head_dim
    heads, shared = attention.n_local_heads, attention.n_local_kv_heads
    _, keys, values = weight_of(attention.qkv).split([heads * size, shared * size, shared * size])
    of_heads = (
        each.unflatten(0, (shared, size)).repeat_interleave(heads // shared, 0) for each in (keys, values)
    )
    keys, values = (each.flatten(0, 1) for each in of_heads)
    return keys, values


def lumina_of_pairs(pairs: int) -> str:
    """Of an adapter with so many K'/V' pairs, one for each block."""
    named = {family.site_count: family.name for family in FAMILIES}
    return named.get(pairs, f"NextDiT with {pairs} blocks")


def _unnamed(context_width: int, counts: Counts) -> Family:
    return Family(lumina_of_pairs(sum(counts)), NEXT_DIT, context_width, sum(counts), released=False)


NEXT_DIT = Architecture(
    "NextDiT",
    find_sites,
    lambda index: index,
    {},
    text_matrices,
    patch_grid,
    _unnamed,
    stages=(LAYER,),
    file_prefix="layers-",
)
Z_IMAGE = Family("Z-Image", NEXT_DIT, 0, Z_IMAGE_LAYERS, resampler_width=1280, released=False)
LUMINA2 = Family("Lumina 2", NEXT_DIT, 0, LUMINA2_LAYERS, resampler_width=1280, released=False)
FAMILIES = (Z_IMAGE, LUMINA2)
