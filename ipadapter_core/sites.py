"""Cross-attention sites of a UNet, derived from the model itself, in checkpoint order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from .errors import MismatchError
from .spec import AdapterSpec, family_name

# 'input_blocks.4.1.transformer_blocks.0' or 'middle_block.1.transformer_blocks.9', of ComfyUI's openaimodel.py
_BLOCK = re.compile(r"^(input|middle|output)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)$")
# Released files number the sites as diffusers does: down, up, middle last (list(unet.attn_processors)).
_ORDER = ("input", "output", "middle")


@dataclass(frozen=True)
class Site:
    """One cross-attention. block: input, middle or output; number: of the block; depth: inside its transformer.

    width: inner width of the attention, rows of its W'k. context_width: of the text tokens it reads.
    path: of its transformer block in the diffusion model.
    """

    block: str
    number: int
    depth: int
    width: int
    context_width: int
    path: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        """The host's patch key. The middle block is number 0 (openaimodel.py sets ("middle", 0))."""
        return self.block, self.number, self.depth

    @property
    def layer(self) -> str:
        """Name of the attention block that users weight: all depths of one transformer share it."""
        return self.block if self.block == "middle" else f"{self.block} {self.number}"


Exchanged = Callable[[str, nn.Module], nn.Module]


def unet_sites(
    diffusion_model: nn.Module, exchanged: Exchanged = lambda _, module: module
) -> tuple[Site, ...]:
    """Every text cross-attention of a UNet in checkpoint order: 16 for SD1.5, 70 for SDXL.

    exchanged: of the path of an attn2 and the module there, the one that will be there while sampling. Raises
    MismatchError where that is no cross-attention any more.
    """
    sites: list[Site] = []
    for name, module in diffusion_model.named_modules():
        match = _BLOCK.match(name.replace("_orig_mod.", ""))  # blocks that somebody compiled one by one
        found = getattr(module, "attn2", None)
        if match and found is not None:
            attn2: Any = exchanged(f"{name}.attn2", found)
            check_attention(attn2, name)
            block, number = match[1], 0 if match[1] == "middle" else int(match[2])
            widths = attn2.to_q.out_features, attn2.to_k.in_features
            sites.append(Site(block, number, int(match[3]), *widths, name))
    return tuple(sorted(sites, key=lambda site: (_ORDER.index(site.block), site.number, site.depth)))


def check_attention(attn2: nn.Module, name: str) -> None:
    """Raise MismatchError where another pack exchanged a cross-attention for a module without its projections."""
    missing = [part for part in ("to_q", "to_k", "to_v", "to_out") if not hasattr(attn2, part)]
    if missing:
        raise MismatchError(
            f"the cross-attention of {name} is a {type(attn2).__name__}, which another node put there and which has no "
            f"{missing[0]}: an image prompt cannot be added to it. Use the image prompt without that node."
        )


def layers(sites: tuple[Site, ...]) -> tuple[str, ...]:
    """Names of the attention blocks in the order the UNet runs them: input, middle, output."""
    run = sorted(sites, key=lambda site: (("input", "middle", "output").index(site.block), site.number))
    return tuple(dict.fromkeys(site.layer for site in run))


def model_family(sites: tuple[Site, ...]) -> str:
    return (
        family_name(sites[0].context_width, len(sites)) if sites else "a model without UNet cross-attention"
    )


Position = tuple[str, int, int]


def _positions(*blocks: tuple[str, tuple[int, ...], int]) -> tuple[Position, ...]:
    return tuple((block, n, d) for block, numbers, depth in blocks for n in numbers for d in range(depth))


# Where the pairs of a released adapter belong, in file order, by their count. For UNets pruned of some of these sites
# (SSD-1B, Vega); the sites of the model itself are never read from here.
_RELEASED: dict[int, tuple[Position, ...]] = {
    16: _positions(
        ("input", (1, 2, 4, 5, 7, 8), 1), ("output", (3, 4, 5, 6, 7, 8, 9, 10, 11), 1), ("middle", (0,), 1)
    ),
    70: _positions(
        ("input", (4, 5), 2),
        ("input", (7, 8), 10),
        ("output", (0, 1, 2), 10),
        ("output", (3, 4, 5), 2),
        ("middle", (0,), 10),
    ),
}


def fit(spec: AdapterSpec, name: str, sites: tuple[Site, ...]) -> tuple[int, ...]:
    """For each site the index of its K'/V' pair in the adapter.

    An adapter fits a model with exactly its sites, or one that lacks some of them. Raises MismatchError otherwise.
    """
    if not sites:
        raise MismatchError(
            f"{name} is an adapter for {spec.family}, but the connected model has no UNet cross-attention "
            "(it may be a Flux, SD3 or other transformer). Load an SD1.5 or SDXL checkpoint."
        )
    if spec.context_width == sites[0].context_width:
        if spec.site_widths == tuple(site.width for site in sites):
            return tuple(range(len(sites)))
        indices = _indices_of_fewer(spec, sites)
        if indices:
            return indices
    raise MismatchError(
        f"{name} is an adapter for {spec.family}, but the connected model is {model_family(sites)}. "
        f"The adapter has {len(spec.site_widths)} sites of context width {spec.context_width}, "
        f"the model {len(sites)} of {sites[0].context_width}. "
        f"Load an adapter for {model_family(sites)}, or a checkpoint of the adapter's family."
    )


def _indices_of_fewer(spec: AdapterSpec, sites: tuple[Site, ...]) -> tuple[int, ...] | None:
    """By position in the UNet, where the model has a part of the adapter's sites, all of equal width."""
    number = {position: index for index, position in enumerate(_RELEASED.get(len(spec.site_widths), ()))}
    indices = [number.get(site.key) for site in sites]
    if any(
        index is None or spec.site_widths[index] != site.width
        for index, site in zip(indices, sites, strict=True)
    ):
        return None
    return tuple(index for index in indices if index is not None)
