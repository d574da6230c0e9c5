"""Image prompts onto a model: a clone with patches at its sites."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..ipadapter_core.adapter import TokenSource
from ..ipadapter_core.attention import AtSite, SiteResidual
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.families import table
from ..ipadapter_core.families.matching import match_sites
from ..ipadapter_core.families.site import Site
from ..ipadapter_core.joint import JointResidual
from ..ipadapter_core.masking import Region
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.scaling import Scaling
from ..ipadapter_core.spec import Target
from ..ipadapter_core.timing import Timing, timing
from ..ipadapter_core.weighting import site_weights, source_of
from .adapters import HostAdapter
from .attach import attachment_of
from .attach.base import Residual
from .attach.carrier import carrier_of, carry, load_beside
from .attach.slots import put_in_slots, residuals_in_slots
from .attach.watch import WATCH, Applied, Watch
from .server import running_node, working_node

_log = logging.getLogger(__name__)


def model_sites(model: Any) -> tuple[Site, ...]:
    """Of the model as it samples. Raises MismatchError where another node exchanges a cross-attention for something else."""

    def exchanged(path: str, found: nn.Module) -> nn.Module:
        """By this model's own patch; and not by one that another branch, which sampled last, left in place."""
        name = f"diffusion_model.{path}"
        return model.object_patches.get(name, model.object_patches_backup.get(name, found))

    return table.model_sites(model.get_model_object("diffusion_model"), exchanged)


def base_family(model: Any) -> str:
    """Name of the model's family. Kolors has SDXL's sites; its own projection of the text identifies it."""
    projects = getattr(model.get_model_object("diffusion_model"), "encoder_hid_proj", None) is not None
    return table.family_of(model_sites(model), projects).name


def check_model(model: Any, adapter: TokenSource) -> None:
    """Raise MismatchError unless the adapter belongs to this model's family."""
    match_sites(adapter.spec, adapter.name, model_sites(model))
    _context_projection(model, adapter)


@dataclass(frozen=True, eq=False)
class ApplySettings:
    """How a prompt is added. weights: λ of every site, in the model's order. timing: None for all of sampling.

    per_picture: weights of the pictures beside λ, cut, or the last repeated. repeat_last: as of SiteResidual.
    context_scale: of tokens that went through the model's own projection.
    """

    weights: Sequence[float]
    timing: Timing | None = None
    region: Region | None = None
    scaling: Scaling = Scaling.V_ONLY
    per_picture: Tensor | None = None
    repeat_last: bool = False
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
    weights = weights_for(model, prompt.adapter, weight, weight_type, layer_weights)
    region = None if mask is None else Region(mask)
    return add_prompt(model, prompt, ApplySettings(weights, timing(start_at, end_at), region))


def weights_for(
    model: Any,
    adapter: TokenSource,
    weight: float,
    weight_type: str,
    layer_weights: Mapping[str, float] | None = None,
) -> tuple[float, ...]:
    """λ of every site of the model for this adapter. Raises MismatchError where they do not fit."""
    sites = model_sites(model)
    pairs = match_sites(adapter.spec, adapter.name, sites)
    weights = site_weights(sites, weight, weight_type, layer_weights, pairs)
    family = table.family_of(sites)
    if source := source_of(weight_type, family):
        _log.info(
            "Image Prompt: '%s' is an experiment on %s: its blocks were %s.", weight_type, family.name, source
        )
    return weights


def add_prompt(model: Any, prompt: ImagePrompt, settings: ApplySettings) -> Any:
    """A clone of `model` with the prompt added as these settings say."""
    sites = model_sites(model)
    indices = match_sites(prompt.adapter.spec, prompt.adapter.name, sites)
    projection = _context_projection(model, prompt.adapter)
    attachment_of(table.family_of(sites).architecture).require_hooks(_has_wrappers(model))
    patched = model.clone()
    if not any(settings.weights):
        return patched
    read = prompt if projection is None else prompt.project_context(*projection, settings.context_scale)
    acting = [
        (site, index, weight)
        for site, weight, index in zip(sites, settings.weights, indices, strict=True)
        if weight and index is not None
    ]
    if not acting:
        return patched
    timed, behind = prompt.adapter.spec.entry.timed, prompt.adapter.spec.entry.target is Target.BLOCK
    residual_at = _timed_residuals(prompt, settings) if timed else _constant_residuals(read, settings)
    applied = Applied(prompt.adapter.name, len(acting), working_node())
    residuals = {
        site: Residual(residual_at(site, index, weight), settings.timing, behind, applied, number)
        for number, (site, index, weight) in enumerate(acting)
    }
    put = carry if _has_wrappers(model) else put_in_slots
    put(patched, residuals, sites)
    if timed and isinstance(prompt.adapter, HostAdapter):
        load_beside(patched, prompt.adapter.patcher)
    return patched


def residuals_of(model: Any) -> dict[tuple[str, int], tuple[Residual, ...]]:
    """The residuals that a model carries, by label and depth of their site."""
    if not _has_wrappers(model):
        found: Mapping[Site, tuple[Residual, ...]] = residuals_in_slots(model, model_sites(model))
    else:
        carrier = carrier_of(model)
        found = {} if carrier is None else carrier.residuals
    return {(site.label, site.depth): residuals for site, residuals in found.items()}


def summary(before: Any, after: Any) -> str:
    """One line for the page: at how many of the model's attentions the last prompt acts, and what it holds.

    Bytes are of K' and V' of the prompts that `after` has and `before` has not; where steps compute them, none are held.
    """
    had, has = residuals_of(before), residuals_of(after)
    new = [residual.site for where, at_site in has.items() for residual in at_site[len(had.get(where, ())) :]]
    held = [tensor for site in new if isinstance(site, SiteResidual) for tensor in (site.keys, site.values)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in held)
    megabytes = size / 1e6
    return f"{len(new)} of {len(model_sites(after))} blocks, {megabytes:.{1 if megabytes < 10 else 0}f} MB"


def watched(model: Any, sites: int) -> tuple[Any, Watch]:
    """A clone of the model, and what sees the image prompts of its runs at so many sites of each; 0 for all."""
    patched, watch = model.clone(), Watch(sites, running_node)
    patched.model_options["transformer_options"][WATCH] = watch
    if _has_wrappers(model):
        from comfy.patcher_extension import WrappersMP

        patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WATCH)
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WATCH, watch.sample)
    return patched, watch


def _has_wrappers(model: Any) -> bool:
    """Not hosts before December 2024."""
    return hasattr(model, "add_wrapper_with_key")


def _constant_residuals(prompt: ImagePrompt, settings: ApplySettings) -> Callable[[Site, int, float], AtSite]:
    """Of a site, the number of its pair and its weight: of K' and V' that are computed now, for all of sampling."""

    def at(site: Site, index: int, weight: float) -> SiteResidual:
        return SiteResidual(
            *prompt.keys_values_for(site.heads)[index],
            prompt.rows,
            settings.at(weight),
            settings.region,
            scaling=settings.scaling,
            tokens_per_image=prompt.tokens_per_image,
            repeat_last=settings.repeat_last,
            lengths=prompt.lengths,
        )

    return at


def _timed_residuals(prompt: ImagePrompt, settings: ApplySettings) -> Callable[[Site, int, float], AtSite]:
    """The same, of K' and V' that are computed in each step."""
    if settings.scaling is not Scaling.V_ONLY:
        raise MismatchError(
            f"embeds_scaling '{settings.scaling.value}' scales keys as well, and {prompt.adapter.name} attends to the "
            f"picture's own keys beside its. Use '{Scaling.V_ONLY.value}'."
        )

    def at(site: Site, index: int, weight: float) -> JointResidual:
        return JointResidual(
            prompt.timed_pairs,
            index,
            settings.at(weight),
            settings.region,
            repeat_last=settings.repeat_last,
        )

    return at


def _context_projection(model: Any, adapter: TokenSource) -> tuple[Tensor, Tensor] | None:
    """The model's own projection of its context, where the adapter's tokens go through it (Kolors FaceID)."""
    if not adapter.spec.needs_context_projection:
        return None
    module = getattr(model.get_model_object("diffusion_model"), "encoder_hid_proj", None)
    widths = (adapter.spec.context_width, adapter.spec.token_width)
    if module is None or tuple(module.weight.shape) != widths:
        raise MismatchError(
            f"{adapter.name} is an adapter for {adapter.spec.family}: its tokens of width {widths[1]} go through the "
            f"model's encoder_hid_proj to {widths[0]}, and the connected model has none. Load a Kolors model."
        )
    return module.weight, module.bias
