"""Image prompts onto a model: a clone with patches at its sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...ipadapter_core.adapter import TokenSource
from ...ipadapter_core.attention import SiteResidual
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.masking import Region
from ...ipadapter_core.prompt import ImagePrompt
from ...ipadapter_core.scaling import Scaling
from ...ipadapter_core.sites import Site, fit, model_family, unet_sites
from ...ipadapter_core.spec import KOLORS
from ...ipadapter_core.weighting import SigmaWindow, site_weights
from .compiled import remember_call
from .patches import Residual, SitePatch, StepClock

KEY = "image_prompt"  # of our callbacks and wrappers


def model_sites(model: Any) -> tuple[Site, ...]:
    return unet_sites(model.get_model_object("diffusion_model"))


def base_family(model: Any) -> str:
    """Name of the model's family. Kolors has SDXL's sites; its own projection of the text tells it."""
    projects = getattr(model.get_model_object("diffusion_model"), "encoder_hid_proj", None) is not None
    return KOLORS if projects else model_family(model_sites(model))


def check_model(model: Any, adapter: TokenSource) -> None:
    """Raise MismatchError unless the adapter belongs to this model's family."""
    fit(adapter.spec, adapter.name, model_sites(model))
    _context_projection(model, adapter)


@dataclass(frozen=True, eq=False)
class Manner:
    """How a prompt is added. weights: λ of every site, in the model's order. window: None for all of sampling.

    per_picture: weights of the pictures beside λ, cut, or the last repeated. repeats: as of SiteResidual.
    context_scale: of tokens that went through the model's own projection.
    """

    weights: Sequence[float]
    window: SigmaWindow | None = None
    region: Region | None = None
    scaling: Scaling = Scaling.V_ONLY
    per_picture: Tensor | None = None
    repeats: bool = False
    context_scale: float = 1.0

    def at(self, weight: float) -> float | Tensor:
        return weight if self.per_picture is None else self.per_picture * weight


def apply_prompt(
    model: Any,
    prompt: ImagePrompt,
    weight: float,
    start_at: float = 0.0,
    end_at: float = 1.0,
    weight_type: str = "linear",
    mask: Tensor | None = None,
    layer_weights: Mapping[str, float] | None = None,
) -> Any:
    """A clone of `model` with the prompt added at every site whose weight is not 0. `model` stays as it was."""
    sites = model_sites(model)
    fit(prompt.adapter.spec, prompt.adapter.name, sites)
    weights = site_weights(sites, weight, weight_type, layer_weights)
    window = SigmaWindow.of(start_at, end_at, model.get_model_object("model_sampling").percent_to_sigma)
    return add_prompt(model, prompt, Manner(weights, window, None if mask is None else Region(mask)))


def add_prompt(model: Any, prompt: ImagePrompt, manner: Manner) -> Any:
    """A clone of `model` with the prompt added in this manner."""
    sites = model_sites(model)
    indices = fit(prompt.adapter.spec, prompt.adapter.name, sites)
    projection = _context_projection(model, prompt.adapter)
    patched = model.clone()
    if not any(manner.weights):
        return patched
    slots = _attn2_slots(patched)
    clock, flat = _clock_of(slots), all(site.depth == 0 for site in sites)
    read = prompt if projection is None else prompt.through(*projection, manner.context_scale)
    pairs = read.keys_values
    for site, weight, index in zip(sites, manner.weights, indices, strict=True):
        if weight:
            residual = Residual(_at_site(prompt, pairs[index], weight, manner), manner.window)
            slot = _slot(site, slots, flat)
            previous = slots.get(slot, slots.get(site.key[:2]))
            patch = previous if isinstance(previous, SitePatch) else SitePatch(previous, (), clock)
            patched.set_model_attn2_replace(patch.twin(residual), *slot)
    _attend(patched)
    return patched


def _slot(site: Site, slots: Mapping[Any, Any], flat: bool) -> tuple[Any, ...]:
    """Where the patch goes. The host looks at (block, number, depth) first, then at (block, number).

    Other packs use the short one where transformers have one block (SD1.5), and join a patch that they find there.
    """
    return site.key[:2] if flat and site.key not in slots else site.key


def _at_site(prompt: ImagePrompt, pair: tuple[Tensor, Tensor], weight: float, manner: Manner) -> SiteResidual:
    return SiteResidual(
        *pair,
        prompt.rows,
        manner.at(weight),
        manner.region,
        scaling=manner.scaling,
        span=prompt.span,
        repeats=manner.repeats,
    )


def _context_projection(model: Any, adapter: TokenSource) -> tuple[Tensor, Tensor] | None:
    """The model's own projection of its context, where the adapter's tokens go through it (Kolors FaceID)."""
    if not adapter.spec.composed:
        return None
    module = getattr(model.get_model_object("diffusion_model"), "encoder_hid_proj", None)
    widths = (adapter.spec.context_width, adapter.spec.token_width)
    if module is None or tuple(module.weight.shape) != widths:
        raise MismatchError(
            f"{adapter.name} is an adapter for {adapter.spec.family}: its tokens of width {widths[1]} go through the "
            f"model's encoder_hid_proj to {widths[0]}, and the connected model has none. Load a Kolors model."
        )
    return module.weight, module.bias


def _clock_of(slots: Mapping[Any, Any]) -> StepClock:
    return (
        next((patch.clock for patch in slots.values() if isinstance(patch, SitePatch)), None) or StepClock()
    )


def _attn2_slots(model: Any) -> dict[Any, Any]:
    return model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})


def _attend(model: Any) -> None:
    """Ask the host to call us when it clones the model, calls it, and has sampled. Hosts of Aug 2024 cannot."""
    if not hasattr(model, "add_callback_with_key"):
        return
    from comfy.patcher_extension import CallbacksMP, WrappersMP

    callbacks = {CallbacksMP.ON_CLONE: _give_twins}
    if not hasattr(model, "model_patches_call_function"):  # later hosts call cleanup() of every patch
        callbacks[CallbacksMP.ON_CLEANUP] = _forget_ready
    for moment, callback in callbacks.items():
        if not model.get_callbacks(moment, KEY):
            model.add_callback_with_key(moment, KEY, callback)
    if not model.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, remember_call)


def _give_twins(_: Any, clone: Any) -> None:
    """Where the host's clone() shares patches, every clone gets twins of ours."""
    slots = _attn2_slots(clone)
    slots.update({key: patch.twin() for key, patch in slots.items() if isinstance(patch, SitePatch)})


def _forget_ready(model: Any) -> None:
    for patch in _attn2_slots(model).values():
        if isinstance(patch, SitePatch):
            patch.cleanup()
