"""What an apply node of the de-facto pack is asked for, and how it becomes prompts on a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import host
from ...ipadapter_core.adapter import TokenSource
from ...ipadapter_core.errors import SettingError
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.families.table import family_of
from ...ipadapter_core.families.unet import SD15
from ...ipadapter_core.features import Features
from ...ipadapter_core.masking import Region
from ...ipadapter_core.prompt import ImagePrompt
from ...ipadapter_core.scaling import Scaling
from ...ipadapter_core.timing import Timing
from .arithmetic.two_image_weights import Source, Strengths, two_image_weights, two_image_weights_by_layer
from .inputs import weight_type_of
from .settings import exact_legacy

Weight = float | Sequence[float]
_TWO_IMAGES_ON_SD15 = (
    "Image Prompt: SD1.5 has no block of its own for style or for composition, as SDXL has, and the older pack refused "
    "this there. The style image steers the blocks %s, the composition image %s."
)
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LegacyApplySettings:
    """How prompts act, in the words of the de-facto nodes. A list of weights has one for each picture of a batch.

    composition: weight of the composition image, as `weight` without it. boost: of the precise types, as `weight`
    without it. layers: weights of attention blocks by number, instead of the weight type's. mask (m, H, W), fp32.
    """

    weight: Weight = 1.0
    weight_type: str = "linear"
    start_at: float = 0.0
    end_at: float = 1.0
    scaling: str = Scaling.V_ONLY.value
    mask: Tensor | None = None
    composition: Weight | None = None
    boost: float | None = None
    layers: dict[int, float] | None = None
    unfold: bool = False
    context_scale: float = 1.0
    interpolation: str = "bilinear"
    first_generation: bool = False


def add(model: Any, prompts: dict[Source, ImagePrompt], settings: LegacyApplySettings) -> Any:
    """A clone of `model` with these prompts. prompts: of the image, and of the composition image if there is another."""
    image = prompts[Source.IMAGE]
    sources = {Source.COMPOSITION: image, Source.NEGATED: image.negated, **prompts}
    patched = model
    for source, weights in _parts(host.model_sites(model), settings).items():
        patched = host.add_prompt(patched, sources[source], _at(settings, source, weights))
    return patched


def _at(settings: LegacyApplySettings, source: Source, weights: Sequence[float]) -> host.ApplySettings:
    lists = _lists(settings)
    exact = exact_legacy()
    whole = settings.start_at <= 0 and settings.end_at >= 1
    return host.ApplySettings(
        weights,
        None if whole else Timing(settings.start_at, settings.end_at, closed=True),
        None
        if settings.mask is None
        else Region(settings.mask.cpu(), settings.interpolation, sqrt_grid=exact),
        Scaling(settings.scaling),
        lists[source],
        repeat_last=True,
        context_scale=settings.context_scale,
    )


def _parts(sites: tuple[Site, ...], settings: LegacyApplySettings) -> dict[Source, tuple[float, ...]]:
    """λ by site for each source of tokens. A list of weights stands for 1 here; it multiplies later."""
    name = weight_type_of(settings.weight_type)
    if name is None:
        raise SettingError(
            f"unknown weight type '{settings.weight_type}'. Choose one of the menu, for example 'linear'."
        )
    weight = _number(settings.weight, settings.unfold)
    if settings.layers is not None:
        made = two_image_weights_by_layer(
            sites, name, {t: value * weight for t, value in settings.layers.items()}
        )
    else:
        made = two_image_weights(sites, name, _strengths(settings, weight))
        if name.endswith("style and composition") and family_of(sites) is SD15:
            log.warning(_TWO_IMAGES_ON_SD15, ", ".join(SD15.style), ", ".join(SD15.composition))
    if exact_legacy() and not settings.first_generation:
        made = {source: _without_middle(sites, weights) for source, weights in made.items()}
    return made


def _strengths(settings: LegacyApplySettings, weight: float) -> Strengths:
    """Without a weight of its own the composition follows the image's; the de-facto pack leaves it at 1."""
    composition = _number(settings.composition, settings.unfold) if settings.composition is not None else None
    if composition is None:
        composition = 1.0 if exact_legacy() else weight
    return Strengths(weight, composition, weight if settings.boost is None else settings.boost)


def _without_middle(sites: tuple[Site, ...], weights: tuple[float, ...]) -> tuple[float, ...]:
    """The de-facto pack never reaches the middle block, since September 2024."""
    return tuple(0.0 if site.stage == "middle" else w for site, w in zip(sites, weights, strict=True))


def _number(weight: Weight, unfold: bool) -> float:
    """Of a list: 1, since it multiplies later, or its first value where all pictures get the same."""
    if isinstance(weight, Sequence):
        return (1.0 if any(weight) else 0.0) if unfold else float(weight[0])
    return float(weight)


def _per_picture(weight: Weight | None, unfold: bool) -> Tensor | None:
    if unfold and isinstance(weight, Sequence):
        return torch.tensor([float(w) for w in weight])
    return None


def _lists(settings: LegacyApplySettings) -> dict[Source, Tensor | None]:
    """Weights of the pictures for each source."""
    image = _per_picture(settings.weight, settings.unfold)
    own = _per_picture(settings.composition, settings.unfold)
    follows = settings.composition is None and not exact_legacy()
    return {
        Source.IMAGE: image,
        Source.COMPOSITION: image if follows else own,
        Source.NEGATED: image if settings.boost is None or settings.layers is not None else None,
    }


# --- tokens ------------------------------------------------------------------------------------------------------


def prompt_from_features(
    adapter: TokenSource, cond: Features, uncond: Features | None, unfold: bool, batch_size: int = 0
) -> ImagePrompt:
    """A prompt of the features of n pictures and of their negatives: these are cut to n, or the last one is repeated; None
    adds nothing.

    Unfolded, a row for each picture of the batch; else all in one row, side by side.
    """
    tokens = _project(adapter, cond, batch_size)
    nothing = tokens[:1, :0] if uncond is None else _project(adapter, uncond, batch_size)
    n, tokens_per_image = tokens.shape[:2]
    nothing = nothing if len(nothing) == 1 else nothing[[min(row, len(nothing) - 1) for row in range(n)]]
    if not unfold:
        tokens, nothing = tokens.flatten(0, 1)[None], nothing.flatten(0, 1)[None]
    tokens, nothing = (t.detach().to("cpu", torch.float32) for t in (tokens, nothing))
    return ImagePrompt(
        adapter, tokens, nothing, torch.ones(tokens.shape[:2]), tokens_per_image=tokens_per_image
    )


def _project(adapter: TokenSource, features: Features, batch_size: int) -> Tensor:
    count = features.count
    size = batch_size if 0 < batch_size < count else count
    return torch.cat([adapter.project(features.rows(start, start + size)) for start in range(0, count, size)])
