"""Qwen-Image: a transformer whose blocks attend to text and image together, each with weights of its own.

As ComfyUI's comfy/ldm/qwen_image names its parts. Nobody released an adapter for it: those trained with this pack enter at
every block. They bring tokens of a width of their own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .family import Architecture, Counts, Family, patch_grid
from .site import Exchanged, Site
from .weights import weight_of

BLOCK = "block"
BLOCKS = 60  # of Qwen-Image and Qwen-Image-Edit


def find_sites(network: nn.Module, _: Exchanged) -> tuple[Site, ...]:
    """Every block. Other transformers have blocks of this name, but no norm in front of their text."""
    blocks: Any = getattr(network, "transformer_blocks", None)
    if not blocks or not hasattr(network, "txt_norm") or not hasattr(network, "txt_in"):
        return ()
    return tuple(_site(n, getattr(block, "_orig_mod", block).attn) for n, block in enumerate(blocks))


def _site(number: int, attention: Any) -> Site:
    sizes = attention.inner_dim, 0, attention.heads
    return Site(f"{BLOCK} {number}", BLOCK, number, 0, *sizes, f"transformer_blocks.{number}", "Qwen-Image")


def text_matrices(network: nn.Module, site: Site) -> tuple[Tensor, Tensor]:
    """Of the block's text stream."""
    attention: Any = network.get_submodule(f"{site.path}.attn")
    return weight_of(attention.add_k_proj), weight_of(attention.add_v_proj)


def qwen_of_pairs(pairs: int) -> str:
    """Of an adapter with so many K'/V' pairs, one for each block."""
    return QWEN_IMAGE.name if pairs == BLOCKS else f"Qwen-Image with {pairs} blocks"


def _unnamed(context_width: int, counts: Counts) -> Family:
    return Family(qwen_of_pairs(sum(counts)), QWEN, context_width, sum(counts), released=False)


QWEN = Architecture(
    "Qwen-Image",
    find_sites,
    lambda index: index,
    {},
    text_matrices,
    patch_grid,
    _unnamed,
    stages=(BLOCK,),
    file_prefix="transformer_blocks-",
)
QWEN_IMAGE = Family("Qwen-Image", QWEN, 0, BLOCKS, resampler_width=1280, released=False)
FAMILIES = (QWEN_IMAGE,)
