"""What stands in the host's attn2 slots: the attention that was there before, and image prompts added to it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from torch import Tensor

from ...ipadapter_core.attention import COND, SiteResidual
from ...ipadapter_core.masking import Region, feature_size
from ...ipadapter_core.weighting import SigmaWindow
from .compiled import add_in_graph, compiling, named

# Key of the host's options: another pack's attention, which may keep what it gives.
OVERRIDE = "optimized_attention_override"


class StepClock:
    """The current sigma as a number: one read from the device per model call, shared by all prompts and sites."""

    def __init__(self) -> None:
        self._last: tuple[Tensor | None, float] = (None, 0.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepClock:
        return self

    def read(self, sigmas: Tensor) -> float:
        last = self._last
        if last[0] is not sigmas:  # the tensor itself is kept, so its identity cannot be reused
            last = self._last = (sigmas, float(sigmas[0]))
        return last[1]


class Residual:
    """A prompt's residual at one site and the window in which it acts."""

    def __init__(self, site: SiteResidual, window: SigmaWindow | None):
        self.site, self.window = site, window

    def acts(self, clock: StepClock, sigmas: Tensor | None) -> bool:
        return self.window is None or sigmas is None or clock.read(sigmas) in self.window


class SitePatch:
    """What stands in one attn2 slot: the attention that was there before, and image prompts added to it.

    `base` is another pack's patch, or None for the host's own attention. Never changed by our nodes: applying
    again builds a new patch. Other packs do `add` to it in place, so every clone of a model gets a twin of its own,
    which shares all tensors: hosts up to 0.13 deep-copy patches, later ones call back.
    """

    def __init__(self, base: Callable[..., Tensor] | None, residuals: tuple[Residual, ...], clock: StepClock):
        self.base, self.residuals, self.clock = base, residuals, clock
        self.callback: list[Callable[..., Tensor]] = []
        self.kwargs: list[dict[str, Any]] = []
        self.name = named(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> SitePatch:
        return self.twin(base=copy.deepcopy(self.base, memo))

    def twin(self, *more: Residual, base: Callable[..., Tensor] | None = None) -> SitePatch:
        """The same patch as an object of its own, with `more` residuals."""
        twin = SitePatch(base or self.base, (*self.residuals, *more), self.clock)
        twin.callback, twin.kwargs = [*self.callback], [*self.kwargs]
        return twin

    @property
    def joined(self) -> tuple[Callable[..., Tensor] | None, ...]:
        """What other packs have here: the patch before, and guests."""
        return (self.base, *self.callback)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        base = self.base or text_attention
        out = base(q, k, v, extra_options)
        if compiling():
            out = add_in_graph(self.name, out, q, extra_options, animation_frames(extra_options))
        else:
            out = self.add_prompts(out, q, extra_options, self.base is None and OVERRIDE not in extra_options)
        return self._with_guests(out, q, k, v, extra_options)

    def add_prompts(self, out: Tensor, q: Tensor, options: Mapping[str, Any], own: bool = False) -> Tensor:
        """out with the prompts whose window is open. options: of the host, at this site. own: nobody else has out."""
        sigmas = options.get("sigmas")
        for residual in self.residuals:
            if residual.acts(self.clock, sigmas):
                chunks = tuple(options.get("cond_or_uncond", (COND,)))
                size = _feature_size(residual.site.region, q, options)
                out = residual.site.add_to(
                    out, q, options["n_heads"], chunks, size, animation_frames(options), in_place=own
                )
                own = True
        return out

    def add(self, callback: Callable[..., Tensor], **kwargs: Any) -> None:
        """The protocol of the de-facto pack, InstantID and PuLID, which join a patch that is already in the slot."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def _with_guests(
        self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]
    ) -> Tensor:
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            sigma = self.clock.read(extra_options["sigmas"])
            if kwargs.get("sigma_start", float("inf")) >= sigma >= kwargs.get("sigma_end", 0.0):
                out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out

    def to(self, target: Any) -> SitePatch:
        """Called by the host with devices and dtypes; ready-made tensors follow q, so only stale ones are dropped."""
        if isinstance(target, torch.device):
            for residual in self.residuals:
                residual.site.forget(target)
        return self

    def cleanup(self) -> None:
        """Called by hosts after 0.16.4 when sampling ends."""
        for residual in self.residuals:
            residual.site.forget()


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


def animation_frames(extra_options: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Numbers of the frames of this call: AnimateDiff's sliding window, or the host's own context window."""
    window = (extra_options.get("ad_params") or {}).get("sub_idxs")
    if window is None:
        window = getattr(extra_options.get("context_window"), "index_list", None)
    return None if window is None else tuple(int(number) for number in window)
