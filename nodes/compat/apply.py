"""The apply nodes of the de-facto pack: their ids, inputs and Python methods on our core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ... import host
from .execute import ImageInputs, enhancement_of, execute, execute_each, extractor_for, parse_layers
from .inputs import ANY_FRACTION, COMBINE, WEIGHT_TO_3, Compatible, weight_type_of
from .regions import checked_params
from .request import LegacyApplySettings, Weight
from .values import adapter_of

_TIMED = "start_at end_at embeds_scaling"
_COMBINED = f"combine_embeds {_TIMED}"
_MASKED = "image_negative attn_mask clip_vision"
_SHARED = "model ipadapter image weight"
_TWO_IMAGES = "model ipadapter image_style image_composition weight_style weight_composition expand_style"
_FACES = f"{_SHARED} weight_faceidv2"
LISTS = "weight weight_style weight_composition"


class AnyApplyNode(Compatible):
    """What all apply nodes declare."""

    OPTIONAL = _MASKED
    LISTS = LISTS
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter"
    unfold = False

    def __init__(self) -> None:
        self.unfold_batch = self.unfold  # other packs set it

    @classmethod
    def VALIDATE_INPUTS(cls, weight_type: Any = "linear") -> bool | str:
        """Types that older versions wrote are accepted; the names of the menu are checked here instead of by the host."""
        if not isinstance(weight_type, str) or weight_type_of(weight_type):
            return True
        return f"weight_type '{weight_type}' is unknown. Choose one of the menu, for example 'linear'."


class ApplyNode(AnyApplyNode):
    """Its method takes every keyword of every apply node: other packs call it so."""

    def apply_ipadapter(
        self,
        model: Any,
        ipadapter: Any,
        start_at: float = 0.0,
        end_at: float = 1.0,
        weight: Weight = 1.0,
        weight_style: Weight = 1.0,
        weight_composition: Weight = 1.0,
        expand_style: bool = False,
        weight_type: str = "linear",
        combine_embeds: str = "concat",
        weight_faceidv2: float | None = None,
        image: Tensor | None = None,
        image_style: Tensor | None = None,
        image_composition: Tensor | None = None,
        image_negative: Tensor | None = None,
        clip_vision: Any = None,
        attn_mask: Tensor | None = None,
        insightface: Any = None,
        embeds_scaling: str = "V only",
        layer_weights: str | None = None,
        ipadapter_params: dict[str, list[Any]] | None = None,
        encode_batch_size: int = 0,
        style_boost: float | None = None,
        composition_boost: float | None = None,
        enhance_tiles: int = 1,
        enhance_ratio: float = 1.0,
        weight_kolors: float = 1.0,
    ) -> tuple[Any, Tensor | None]:
        settings = LegacyApplySettings(
            weight, weight_type, start_at, end_at, embeds_scaling, attn_mask,
            unfold=self.unfold_batch, context_scale=weight_kolors,
        )  # fmt: skip
        composition = None
        if image_style is not None:
            image, composition = image_style, image_style if image_composition is None else image_composition
            settings = _of_two_images(settings, weight_style, weight_composition, expand_style)
        settings = _precise(settings, style_boost, composition_boost, layer_weights)
        adapter = adapter_of(ipadapter)
        host.check_model(model, adapter)
        extractor = extractor_for(
            adapter, ipadapter, clip_vision, insightface, settings.weight,
            weight_faceidv2=weight_faceidv2, enhancement=enhancement_of(enhance_tiles, enhance_ratio),
        )  # fmt: skip
        if ipadapter_params is not None:
            return execute_each(
                model, extractor, adapter, ipadapter_params, combine_embeds, image_negative, settings
            ), None
        if image is None:
            return model.clone(), None
        pictures = ImageInputs(image, composition, image_negative, combine_embeds, encode_batch_size)
        return execute(model, extractor, adapter, pictures, settings)


def _of_two_images(
    settings: LegacyApplySettings, style: Weight, composition: Weight, expand_style: bool
) -> LegacyApplySettings:
    kind = "strong style and composition" if expand_style else "style and composition"
    return replace(settings, weight=style, composition=composition, weight_type=kind)


def _precise(
    settings: LegacyApplySettings, style: float | None, composition: float | None, layer_weights: str | None
) -> LegacyApplySettings:
    """With the boosts of the precise types, and weights by block."""
    for boost, kind in ((style, "style transfer precise"), (composition, "composition precise")):
        if boost is not None:
            settings = replace(settings, boost=boost, weight_type=kind)
    return replace(settings, layers=parse_layers(layer_weights)) if layer_weights else settings


SIMPLE_TYPES = {
    "standard": "linear",
    "prompt is more important": "ease out",
    "style transfer": "style transfer",
}


class SimpleNode(Compatible):
    TITLE = "IPAdapter"
    SEARCH_ALIASES = ["IPAdapter"]
    REQUIRED, OPTIONAL = f"{_SHARED} start_at end_at weight_type", "attn_mask"
    OWN = {"weight": WEIGHT_TO_3, "weight_type": (list(SIMPLE_TYPES),)}
    LISTS = LISTS
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter"

    @classmethod
    def VALIDATE_INPUTS(cls, weight_type: Any = "standard") -> bool:
        return True  # any word was taken for 'standard', and older versions had others

    def apply_ipadapter(
        self,
        model: Any,
        ipadapter: Any,
        image: Tensor,
        weight: Weight,
        start_at: float,
        end_at: float,
        weight_type: str = "standard",
        attn_mask: Tensor | None = None,
    ) -> tuple[Any, Tensor | None]:
        style = "style transfer" if weight_type.startswith("style") else "linear"
        kind = SIMPLE_TYPES.get(weight_type, style)
        node = AdvancedNode()
        return node.apply_ipadapter(
            model, ipadapter, start_at, end_at, weight, weight_type=kind, image=image, attn_mask=attn_mask
        )


class AdvancedNode(ApplyNode):
    TITLE = "IPAdapter Advanced"
    REQUIRED = f"{_SHARED} weight_type {_COMBINED}"


class BatchNode(AdvancedNode):
    TITLE = "IPAdapter Batch (Adv.)"
    REQUIRED = f"{_SHARED} weight_type {_TIMED} encode_batch_size"
    unfold = True


class StyleCompositionNode(ApplyNode):
    TITLE = "IPAdapter Style & Composition SDXL"
    REQUIRED = f"{_TWO_IMAGES} {_COMBINED}"
    OWN = {"combine_embeds": (COMBINE, {"default": "average"})}


class StyleCompositionBatchNode(StyleCompositionNode):
    TITLE = "IPAdapter Style & Composition Batch SDXL"
    REQUIRED = f"{_TWO_IMAGES} {_TIMED}"
    unfold = True


class FaceIDNode(ApplyNode):
    TITLE = "IPAdapter FaceID"
    REQUIRED, OPTIONAL = f"{_FACES} weight_type {_COMBINED}", f"{_MASKED} insightface"
    OWN = {"weight": WEIGHT_TO_3}
    RETURN_TYPES = ("MODEL", "IMAGE")
    RETURN_NAMES = ("MODEL", "face_image")


class FaceIDBatchNode(FaceIDNode):
    TITLE = "IPAdapter FaceID Batch"
    unfold = True


class FaceIDKolorsNode(FaceIDNode):
    TITLE = "IPAdapter FaceID Kolors"
    REQUIRED = f"{_FACES} weight_kolors weight_type {_COMBINED}"


class MadScientistNode(ApplyNode):
    TITLE = "IPAdapter Mad Scientist"
    REQUIRED, OPTIONAL = f"{_FACES} weight_type {_COMBINED} layer_weights", f"{_MASKED} insightface"


class EnhancerNode(ApplyNode):
    TITLE = "IPAdapter ClipVision Enhancer"
    REQUIRED = f"{_SHARED} weight_type {_COMBINED} enhance_tiles enhance_ratio"


class EnhancerBatchNode(EnhancerNode):
    TITLE = "IPAdapter ClipVision Enhancer Batch"
    REQUIRED = f"{_SHARED} weight_type {_TIMED} enhance_tiles enhance_ratio encode_batch_size"
    OWN = {"enhance_ratio": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.05})}
    unfold = True


class FromParamsNode(ApplyNode):
    TITLE = "IPAdapter from Params"
    REQUIRED = "model ipadapter ipadapter_params combine_embeds embeds_scaling"
    KINDS = ANY_FRACTION | {"IPADAPTER_PARAMS": checked_params}
    OPTIONAL = "image_negative clip_vision"


class PreciseStyleNode(ApplyNode):
    TITLE = "IPAdapter Precise Style Transfer"
    REQUIRED = f"{_SHARED} style_boost {_COMBINED}"


class PreciseStyleBatchNode(PreciseStyleNode):
    TITLE = "IPAdapter Precise Style Transfer Batch"
    unfold = True


class PreciseCompositionNode(ApplyNode):
    TITLE = "IPAdapter Precise Composition"
    REQUIRED = f"{_SHARED} composition_boost {_COMBINED}"


class PreciseCompositionBatchNode(PreciseCompositionNode):
    TITLE = "IPAdapter Precise Composition Batch"
    unfold = True


CLASSES = {
    "IPAdapter": SimpleNode,
    "IPAdapterAdvanced": AdvancedNode,
    "IPAdapterBatch": BatchNode,
    "IPAdapterFaceID": FaceIDNode,
    "IPAdapterFaceIDKolors": FaceIDKolorsNode,
    "IPAAdapterFaceIDBatch": FaceIDBatchNode,
    "IPAdapterStyleComposition": StyleCompositionNode,
    "IPAdapterStyleCompositionBatch": StyleCompositionBatchNode,
    "IPAdapterMS": MadScientistNode,
    "IPAdapterClipVisionEnhancer": EnhancerNode,
    "IPAdapterClipVisionEnhancerBatch": EnhancerBatchNode,
    "IPAdapterFromParams": FromParamsNode,
    "IPAdapterPreciseStyleTransfer": PreciseStyleNode,
    "IPAdapterPreciseStyleTransferBatch": PreciseStyleBatchNode,
    "IPAdapterPreciseComposition": PreciseCompositionNode,
    "IPAdapterPreciseCompositionBatch": PreciseCompositionBatchNode,
}
