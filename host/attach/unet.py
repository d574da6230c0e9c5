"""What stands in an attn2 slot: the attention that was there before, and image prompts added to it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import comfy.ldm.modules.attention as host_attention
from torch import Tensor, nn

from ...ipadapter_core.attention import SiteResidual
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.masking import Region, feature_size
from ...ipadapter_core.weighting import Timing
from ..compiled import add_in_graph, compiling, register_patch
from .calls import CALL, Call

# Key of the host's options: another pack's attention, which may keep what it gives.
OVERRIDE = "optimized_attention_override"
Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


_CUT = (
    "another node cuts the picture into parts inside the cross-attentions, and nothing says which part is where, so the "
    "mask of the image prompt cannot be laid on them. Disconnect the mask, or take that node out."
)


class Residual:
    """A prompt's residual at one site and the part of sampling in which it acts."""

    def __init__(self, site: SiteResidual, timing: Timing | None):
        self.site, self.timing = site, timing


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

    def call(self, q: Tensor, options: Mapping[str, Any]) -> Call:
        return options[CALL]

    def add_prompts(self, out: Tensor, q: Tensor, options: Mapping[str, Any], own: bool = False) -> Tensor:
        """out with the prompts whose window is open. options: of the host, at this site. own: nobody else has out."""
        call = self.call(q, options)
        layout = call.layout_of(q, options)
        for residual in self.residuals:
            if call.acts(residual.timing):
                if layout.cut and residual.site.region is not None:
                    raise MismatchError(_CUT)
                size = _feature_size(residual.site.region, q, options)
                out = residual.site.add_to(
                    out, q, options["n_heads"], layout.roles, size, layout.frames,
                    total=call.total, places=layout.places, in_place=own,
                )  # fmt: skip
                own = True
        return out


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
    forward = None if attn2 is None else vars(attn2).get("forward")
    if attn2 is None or not hasattr(forward, "__func__"):
        raise MismatchError(
            f"{q.shape[0]} rows of the picture meet {k.shape[0]} rows of text in a cross-attention: another node adds rows "
            "to the text inside the model, in a way that is not known here. Take that node out, or the image prompt."
        )
    projected = copy.copy(attn2)
    done = dict.fromkeys(("to_q", "to_k", "to_v", "to_out"), nn.Identity())
    projected._modules = {**attn2._modules, **done}
    return forward.__func__(projected, q, context=k, value=v, transformer_options=extra_options)


def _feature_size(
    region: Region | None, q: Tensor, extra_options: Mapping[str, Any]
) -> tuple[int, int] | None:
    """(h, w) of the site's queries; not asked for without a region."""
    if region is None:
        return None
    latent = tuple(extra_options["original_shape"][-2:])
    own = region.size(q.shape[1], latent)
    if own is not None:
        return own
    shape = extra_options.get("activations_shape")
    if shape is not None and shape[-2] * shape[-1] == q.shape[1]:
        return shape[-2], shape[-1]
    return feature_size(q.shape[1], *latent)
