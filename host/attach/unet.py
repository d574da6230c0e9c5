"""UNets: image prompts in the slots that the host keeps for another attention in the place of attn2."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import comfy.ldm.modules.attention as host_attention
from torch import Tensor, nn

from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.families.unet import token_grid
from ...ipadapter_core.masking import Region
from .base import Options, Patches, Residual, Residuals, add_residuals, call_of
from .calls import Call
from .compiled import add_in_graph, compiling, register_patch

# Key of the host's options: another pack's attention, which may keep what it gives.
OVERRIDE = "optimized_attention_override"
Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
Slot = tuple[str, int, int]
_PATH = re.compile(r"(?:input|output|middle)_blocks?\.(\d+)\.")


def slot_of(site: Site) -> Slot:
    """The host's key of a site's patch. The middle block is number 0 (openaimodel.py sets ("middle", 0))."""
    match = _PATH.match(site.path.replace("_orig_mod.", ""))
    assert match is not None, f"{site.path} is no path of the host's"
    return site.stage, 0 if site.stage == "middle" else int(match[1]), site.depth


class UNetAttachment:
    """As base.Attachment."""

    def require_hooks(self, wrappers: bool) -> None:
        """Every host has them."""

    def standing(self, options: Options) -> Patches:
        return options.get("patches_replace", {}).get("attn2", {})

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        made = dict(standing)
        for site, at_site in residuals.items():
            slot = slot_of(site)
            base = standing.get(slot, standing.get(slot[:2]))
            made[slot] = SitePatch(base, at_site, blocks[site].get_submodule("attn2"))
        return made

    def put(self, options: dict[str, Any], patches: Patches) -> None:
        options["patches_replace"] = {**options.get("patches_replace", {}), "attn2": patches}


class SitePatch:
    """The attention of one attn2 slot with image prompts added.

    base: another pack's patch, or None for the host's own attention. attn2: the block's module, where it is known.
    """

    def __init__(
        self, base: Attention | None, residuals: tuple[Residual, ...], attn2: nn.Module | None = None
    ):
        self.base, self.residuals, self.attn2 = base, residuals, attn2
        self.name = register_patch(self)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = self._base_attention(q, k, v, extra_options)
        if compiling():
            return add_in_graph(self.name, out, q, extra_options)
        return self.add_prompts(out, q, extra_options, self.base is None and OVERRIDE not in extra_options)

    def _base_attention(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        if self.base is not None:
            return self.base(q, k, v, extra_options)
        if k.shape[0] != q.shape[0]:
            return _foreign_attention(q, k, v, extra_options, self.attn2)
        return text_attention(q, k, v, extra_options)

    def call(self, q: Tensor, options: Options) -> Call:
        return call_of(options)

    def add_prompts(self, out: Tensor, q: Tensor, options: Options, own: bool = False) -> Tensor:
        """out with the prompts whose window is open. options: of the host, at this site. own: nobody else has out."""
        call = self.call(q, options)
        return add_residuals(
            call, self.residuals, out, q, options, lambda region: _query_size(region, q, options), own
        )


@lru_cache(maxsize=8)
def _takes_options(attention: Callable[..., Any]) -> bool:
    parameters = inspect.signature(attention).parameters
    return "transformer_options" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def text_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """The host's own cross-attention, exactly as an unpatched block calls it, with the user's attention choice."""
    attention = host_attention.optimized_attention
    options: dict[str, Any] = {"attn_precision": extra_options.get("attn_precision")}
    takes = _takes_options.__wrapped__ if compiling() else _takes_options  # compilers warn of caches
    if takes(attention):
        options["transformer_options"] = extra_options
    return attention(q, k, v, extra_options["n_heads"], **options)


def _foreign_attention(
    q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], attn2: nn.Module | None
) -> Tensor:
    """Where text has more rows than the picture, another pack's forward of the block's attention (NAG) knows why.

    It is given the projections that are there already, and what it makes of them is taken before its to_out.
    """
    forward: Any = None if attn2 is None else vars(attn2).get("forward")
    if attn2 is None or not hasattr(forward, "__func__"):
        raise MismatchError(
            f"{q.shape[0]} rows of the picture meet {k.shape[0]} rows of text in a cross-attention: another node adds rows "
            "to the text inside the model, in a way that is not known here. Take that node out, or the image prompt."
        )
    projected = copy.copy(attn2)
    done = dict.fromkeys(("to_q", "to_k", "to_v", "to_out"), nn.Identity())
    projected._modules = {**attn2._modules, **done}
    return forward.__func__(projected, q, context=k, value=v, transformer_options=extra_options)


def _query_size(region: Region | None, q: Tensor, extra_options: Options) -> tuple[int, int]:
    """(h, w) of the site's queries."""
    latent = tuple(extra_options["original_shape"][-2:])
    own = None if region is None else region.size(q.shape[1], latent)
    if own is not None:
        return own
    shape = extra_options.get("activations_shape")
    if shape is not None and shape[-2] * shape[-1] == q.shape[1]:
        return shape[-2], shape[-1]
    return token_grid(q.shape[1], *latent)
