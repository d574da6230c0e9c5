"""SD3 and SD3.5: transformers whose blocks attend to text and image together, each with weights of its own.

As ComfyUI's comfy/ldm/modules/diffusionmodules/mmdit.py names their parts. An adapter brings tokens of a width of its own.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .family import Architecture, Counts, Family, patch_grid
from .site import Exchanged, Site

JOINT = "joint"
LARGE, MEDIUM = 38, 24  # blocks of SD3.5 Large and Turbo; of SD3 Medium and SD3.5 Medium


def find_sites(network: nn.Module, _: Exchanged) -> tuple[Site, ...]:
    """Every block: 38 of SD3.5 Large."""
    parts: Any = network
    blocks = getattr(network, "joint_blocks", None)
    if not blocks or not hasattr(network, "context_embedder"):
        return ()
    sizes = parts.hidden_size, 0, parts.num_heads
    return tuple(
        Site(f"{JOINT} {n}", JOINT, n, 0, *sizes, f"joint_blocks.{n}", "SD3") for n in range(len(blocks))
    )


def sd3_of_pairs(pairs: int) -> str:
    """Of an adapter with so many K'/V' pairs, one for each block."""
    return SD35_LARGE.name if pairs == LARGE else f"SD3.5 with {pairs} K'/V' pairs"


def _unnamed(context_width: int, counts: Counts) -> Family:
    return Family(f"an SD3-like transformer with {sum(counts)} blocks", SD3, context_width, sum(counts))


SD3 = Architecture(
    "SD3",
    find_sites,
    lambda index: index,
    {},
    None,
    patch_grid,
    _unnamed,
    stages=(JOINT,),
)
SD35_LARGE = Family("SD3.5 Large", SD3, 0, LARGE, resampler_width=1280)
FAMILIES = (SD35_LARGE, Family("SD3 Medium or SD3.5 Medium", SD3, 0, MEDIUM))
