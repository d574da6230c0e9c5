"""Flux and Chroma: transformers with blocks of two streams, text and image, and then of one stream of both.

As ComfyUI's comfy/ldm/flux and comfy/ldm/chroma name their parts. An adapter brings tokens of a width of its own (4096 in
released files), which need not be that of the model's text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from .family import Architecture, Counts, Family, patch_grid
from .site import Exchanged, Site

DOUBLE, SINGLE = "double", "single"
RELEASED = 19, 38  # double and single blocks of Flux.1 and Chroma


def flux_sites(network: nn.Module, _: Exchanged) -> tuple[Site, ...]:
    """Every block of a Flux, double ones first: 57 of Flux.1. None of a Chroma."""
    return () if hasattr(network, "distilled_guidance_layer") else _sites(network, "Flux")


def chroma_sites(network: nn.Module, _: Exchanged) -> tuple[Site, ...]:
    """Every block of a Chroma, which makes all its modulations in one small network."""
    return _sites(network, "Chroma") if hasattr(network, "distilled_guidance_layer") else ()


def _sites(network: nn.Module, architecture: str) -> tuple[Site, ...]:
    """HunyuanVideo has blocks of the same names, but its image and text come in through more than a linear layer."""
    parts: Any = network
    ins = [getattr(network, name, None) for name in ("img_in", "txt_in")]
    stages = [getattr(network, f"{stage}_blocks", None) for stage in (DOUBLE, SINGLE)]
    if not all(hasattr(part, "in_features") for part in ins) or not all(stages):
        return ()
    doubles = [_site(DOUBLE, n, n, block, architecture) for n, block in enumerate(parts.double_blocks)]
    singles = [
        _site(SINGLE, n, len(doubles) + n, block, architecture) for n, block in enumerate(parts.single_blocks)
    ]
    return (*doubles, *singles)


def _site(stage: str, number: int, run_index: int, block: Any, architecture: str) -> Site:
    block = getattr(block, "_orig_mod", block)  # that somebody compiled one by one
    path = f"{stage}_blocks.{number}"
    sizes = block.hidden_size, 0, block.num_heads
    return Site(f"{stage} {number}", stage, run_index, 0, *sizes, path, architecture)


def flux_of_pairs(pairs: int) -> str:
    """Of an adapter with so many K'/V' pairs: for the double blocks or for all of them."""
    return FLUX1.name if pairs in (RELEASED[0], sum(RELEASED)) else f"Flux with {pairs} K'/V' pairs"


_OTHER_BLOCKS = (
    f"Flux.1 and Chroma have {RELEASED[0]} double and {RELEASED[1]} single blocks; Flux.2, Krea 2 and pruned models have "
    "others, and no adapter was released for them"
)


def _unnamed(context_width: int, counts: Counts) -> Family:
    name = f"a Flux-like transformer with {' and '.join(_blocks_in_words(counts))} blocks"
    return Family(name, FLUX, context_width, sum(counts), caution=_OTHER_BLOCKS)


def _blocks_in_words(counts: Counts) -> list[str]:
    stages = (DOUBLE, SINGLE) if len(counts) > 1 else ("",)
    return [f"{count} {stage}".strip() for count, stage in zip(counts, stages, strict=True)]


FLUX = Architecture(
    "Flux",
    flux_sites,
    lambda index: index,
    {},
    None,
    patch_grid,
    _unnamed,
    stages=(DOUBLE, SINGLE),
)
CHROMA = replace(FLUX, name="Chroma", find_sites=chroma_sites, like="Flux")

FLUX1 = Family(
    "Flux.1",
    FLUX,
    0,
    sum(RELEASED),
    style=dict.fromkeys((f"{SINGLE} {n}" for n in range(10, RELEASED[1])), 1.0),
    composition=dict.fromkeys((f"{SINGLE} {n}" for n in range(10)), 1.0),
    by_stage=RELEASED,
    experimental="found by exchanging texts and not images (SplitFlux, arXiv 2511.15258)",
)
FAMILIES = (
    FLUX1,
    Family(
        "Chroma",
        CHROMA,
        0,
        sum(RELEASED),
        like="Flux.1",
        caution="no adapter was trained for Chroma itself",
        by_stage=RELEASED,
    ),
)
