"""Cross-attention sites of a UNet, derived from the model itself, in checkpoint order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from .errors import MismatchError
from .variants import AdapterSpec, family_name

# 'input_blocks.4.1.transformer_blocks.0' or 'middle_block.1.transformer_blocks.9', of ComfyUI's openaimodel.py
_BLOCK = re.compile(r"^(input|middle|output)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)$")
# Released files number the sites as diffusers does: down, up, middle last (list(unet.attn_processors)).
_ORDER = ("input", "output", "middle")


@dataclass(frozen=True)
class Site:
    """One cross-attention. block: input, middle or output; number: of the block; depth: inside its transformer.

    width: inner width of the attention, rows of its W'k. context_width: of the text tokens it reads.
    """

    block: str
    number: int
    depth: int
    width: int
    context_width: int

    @property
    def key(self) -> tuple[str, int, int]:
        """The host's patch key. The middle block is number 0 (openaimodel.py sets ("middle", 0))."""
        return self.block, self.number, self.depth

    @property
    def layer(self) -> str:
        """Name of the attention block that users weight: all depths of one transformer share it."""
        return self.block if self.block == "middle" else f"{self.block} {self.number}"


def unet_sites(diffusion_model: nn.Module) -> tuple[Site, ...]:
    """Every text cross-attention of a UNet in checkpoint order: 16 for SD1.5, 70 for SDXL."""
    sites: list[Site] = []
    for name, module in diffusion_model.named_modules():
        match = _BLOCK.match(name)
        attn2 = getattr(module, "attn2", None)
        if match and attn2 is not None:
            block, number = match[1], 0 if match[1] == "middle" else int(match[2])
            sites.append(Site(block, number, int(match[3]), attn2.to_q.out_features, attn2.to_k.in_features))
    return tuple(sorted(sites, key=lambda site: (_ORDER.index(site.block), site.number, site.depth)))


def layers(sites: tuple[Site, ...]) -> tuple[str, ...]:
    """Names of the attention blocks in the order the UNet runs them: input, middle, output."""
    run = sorted(sites, key=lambda site: (("input", "middle", "output").index(site.block), site.number))
    return tuple(dict.fromkeys(site.layer for site in run))


def model_family(sites: tuple[Site, ...]) -> str:
    return (
        family_name(sites[0].context_width, len(sites)) if sites else "a model without UNet cross-attention"
    )


def check_fit(spec: AdapterSpec, name: str, sites: tuple[Site, ...]) -> None:
    """Raise MismatchError unless the adapter has exactly one K'/V' pair of the right width for every site."""
    if not sites:
        raise MismatchError(
            f"{name} is an adapter for {spec.family}, but the connected model has no UNet cross-attention "
            "(it may be a Flux, SD3 or other transformer). Load an SD1.5 or SDXL checkpoint."
        )
    widths = tuple(site.width for site in sites)
    if spec.token_width == sites[0].context_width and spec.site_widths == widths:
        return
    raise MismatchError(
        f"{name} is an adapter for {spec.family}, but the connected model is {model_family(sites)}. "
        f"The adapter has {len(spec.site_widths)} sites of token width {spec.token_width}, "
        f"the model {len(widths)} of {sites[0].context_width}. "
        f"Load an adapter for {model_family(sites)}, or a checkpoint of the adapter's family."
    )
