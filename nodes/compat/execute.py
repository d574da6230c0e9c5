"""Pictures and settings onto a model: what all apply nodes of the de-facto pack have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ... import host
from ...ipadapter_core import values
from ...ipadapter_core.errors import SettingError
from ...ipadapter_core.spec import Variant
from .arithmetic.enhance import Enhancement
from .arithmetic.two_image_weights import Source
from .encoding import FeatureExtractor, extract_features
from .request import LegacyApplySettings, Weight, add, prompt_from_features
from .values import clip_vision_of, face_analysis_of


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """The picture inputs of an apply node, and how features of several are combined."""

    image: Tensor
    composition: Tensor | None = None
    negative: Tensor | None = None
    combine: str = "concat"
    batch_size: int = 0


def execute(
    model: Any,
    extractor: FeatureExtractor,
    adapter: host.HostAdapter,
    pictures: ImageInputs,
    settings: LegacyApplySettings,
) -> tuple[Any, Tensor | None]:
    """(the model with the pictures' prompts, face pictures or None)."""
    features = extract_features(
        extractor, pictures.image, pictures.negative, pictures.combine, settings.unfold
    )
    made = {
        Source.IMAGE: prompt_from_features(
            adapter, features.cond, features.uncond, settings.unfold, pictures.batch_size
        )
    }
    if pictures.composition is not None:
        other = extract_features(
            extractor, pictures.composition, pictures.negative, pictures.combine, settings.unfold
        )
        made[Source.COMPOSITION] = prompt_from_features(
            adapter, other.cond, other.uncond, settings.unfold, pictures.batch_size
        )
    return add(model, made, settings), features.faces


def extractor_for(
    adapter: host.HostAdapter, ipadapter: Any, clip_vision: Any, insightface: Any, weight: Weight, **more: Any
) -> FeatureExtractor:
    """structure (weight_faceidv2): twice the weight where a node has no input for it."""
    given = more.pop("weight_faceidv2", None)
    plain = weight[0] if isinstance(weight, Sequence) else weight
    structure = 2.0 * plain if given is None else float(given)
    spec = adapter.spec
    return FeatureExtractor(
        spec,
        clip_vision_of(ipadapter, clip_vision),
        face_analysis_of(ipadapter, insightface),
        structure=structure if spec.variant in (Variant.FACEID_PLUS_V2, Variant.FACEID_KOLORS) else 1.0,
        **more,
    )


def parse_layers(text: str) -> dict[int, float]:
    """'3:2.5, 6:1' -> {3: 2.5, 6: 1.0}. Raises SettingError that shows the part that is no 'number:weight'."""
    made: dict[int, float] = {}
    for part in re.split(r"[\s,;，；、]+", re.sub(r"\s*:\s*", ":", text.replace("：", ":"))):
        number, _, weight = part.partition(":")
        if part and not (number.isdecimal() and len(number) < 5 and weight):
            raise SettingError(
                f"layer_weights: '{part[:60]}' is not a block's number and its weight. Write '3:2.5, 6:1'."
            )
        if part:
            made[int(number)] = values.weight(weight, f"layer_weights: the weight of block {number}")
    if text.strip() and not made:
        raise SettingError(
            f"layer_weights: '{text.strip()[:60]}' is not a block's number and its weight. Write '3:2.5, 6:1'."
        )
    return made


def enhancement_of(tiles: int, ratio: float) -> Enhancement | None:
    return Enhancement(min(tiles, 16), ratio) if tiles > 1 else None


def execute_each(
    model: Any,
    extractor: FeatureExtractor,
    adapter: host.HostAdapter,
    params: dict[str, list[Any]],
    combine: str,
    negative: Tensor | None,
    settings: LegacyApplySettings,
) -> Any:
    """Region after region, as a chain of apply nodes."""
    names = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")
    for image, mask, weight, weight_type, start_at, end_at in zip(*(params[n] for n in names), strict=True):
        if image is None:
            continue
        own = replace(
            settings, mask=mask, weight=weight, weight_type=weight_type, start_at=start_at, end_at=end_at
        )
        model, _ = execute(model, extractor, adapter, ImageInputs(image, None, negative, combine), own)
    return model
