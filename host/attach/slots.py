"""Image prompts in the attn2 slots themselves, for hosts of August 2024, which have no wrappers.

Their clones copy patches deeply, and other packs join what they find in a slot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...ipadapter_core.families.site import Site
from .base import Residual
from .calls import Call, StepClock, call_of_options
from .unet import Attention, SitePatch, slot_of


class SlotPatch(SitePatch):
    """Never changed by our nodes: applying again builds a new patch. Other packs do `add` to it in place.

    So every clone of a model gets a copy of its own, which shares all tensors.
    """

    def __init__(
        self,
        base: Attention | None,
        residuals: tuple[Residual, ...],
        clock: StepClock,
        percent_to_sigma: Callable[[float], float],
    ):
        super().__init__(base, residuals)
        self.clock, self.percent_to_sigma = clock, percent_to_sigma
        timings = {residual.timing for residual in residuals if residual.timing is not None}
        self.windows = {timing: timing.window(percent_to_sigma) for timing in timings}
        self.callback: list[Callable[..., Tensor]] = []
        self.kwargs: list[dict[str, Any]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> SlotPatch:
        return self.copy_with(base=copy.deepcopy(self.base, memo))

    def copy_with(self, *more: Residual, base: Attention | None = None) -> SlotPatch:
        """The same patch as an object of its own, with `more` residuals."""
        residuals = (*self.residuals, *more)
        copied = SlotPatch(base or self.base, residuals, self.clock, self.percent_to_sigma)
        copied.callback, copied.kwargs = [*self.callback], [*self.kwargs]
        return copied

    def call(self, q: Tensor, options: Mapping[str, Any]) -> Call:
        return call_of_options(options, q.shape[0], self.clock, windows=self.windows)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = super().__call__(q, k, v, extra_options)
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            sigma = self.clock.read(extra_options["sigmas"])
            if kwargs.get("sigma_start", float("inf")) >= sigma >= kwargs.get("sigma_end", 0.0):
                out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out

    def add(self, callback: Callable[..., Tensor], **kwargs: Any) -> None:
        """The protocol of the de-facto pack, InstantID and PuLID, which join a patch that is already in the slot."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def to(self, target: Any) -> SlotPatch:
        """Called by the host with devices and dtypes; ready-made tensors follow q, so only stale ones are dropped."""
        if isinstance(target, torch.device):
            for residual in self.residuals:
                residual.site.forget(target)
        return self


def put_in_slots(model: Any, residuals: Mapping[Site, Residual], sites: Sequence[Site]) -> None:
    """Set patches with these residuals on a clone, on top of what stands there. sites: all of the model."""
    slots = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    sigma = model.get_model_object("model_sampling").percent_to_sigma
    ours = [patch for patch in slots.values() if isinstance(patch, SlotPatch)]
    clock = ours[0].clock if ours else StepClock()
    flat = all(site.depth == 0 for site in sites)
    for site, residual in residuals.items():
        slot = _slot(site, slots, flat)
        previous = slots.get(slot, slots.get(slot[:2]))
        patch = previous if isinstance(previous, SlotPatch) else SlotPatch(previous, (), clock, sigma)
        model.set_model_attn2_replace(patch.copy_with(residual), *slot)


def residuals_in_slots(model: Any, sites: Sequence[Site]) -> dict[Site, tuple[Residual, ...]]:
    slots = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    found = ((site, slots.get(slot_of(site), slots.get(slot_of(site)[:2]))) for site in sites)
    return {site: patch.residuals for site, patch in found if isinstance(patch, SlotPatch)}


def _slot(site: Site, slots: Mapping[Any, Any], flat: bool) -> tuple[Any, ...]:
    """Where the patch goes. The host looks at (block, number, depth) first, then at (block, number).

    Other packs use the short one where transformers have one block (SD1.5), and join a patch that they find there.
    """
    key = slot_of(site)
    return key[:2] if flat and key not in slots else key
