"""Nodes of the de-facto pack's first generation, before March 2024, for the oldest shared graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ... import host
from ...ipadapter_core.checkpoint import Checkpoint
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.features import Features
from ...ipadapter_core.scaling import Scaling
from ...ipadapter_core.spec import Feature, Variant
from .arithmetic.masked_tiles import masked_tiles
from .arithmetic.noise import first_generation_noise
from .arithmetic.two_image_weights import Source
from .encoding import FeatureExtractor, extract_features, features_from_embeds, negative_features, unstacked
from .inputs import Compatible
from .request import LegacyApplySettings, add, prompt_from_features
from .settings import exact_legacy
from .values import adapter_of

SCALINGS = {"original": Scaling.V_ONLY, "linear": Scaling.KEYS_TOO, "channel penalty": Scaling.MEAN}
# Of aligned faces, whatever the model.
FACE_SIZE = 256
_FLOAT3 = ("FLOAT", {"default": 1.0, "min": -1, "max": 3, "step": 0.05})
_FLOAT_0_1 = ("FLOAT", {"default": 1.0, "min": 0, "max": 1.0, "step": 0.01})
_NOISE = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.01})
_BOOL = ("BOOLEAN", {"default": False})
_OWN = {
    "weight": _FLOAT3,
    "noise": _NOISE,
    "weight_type": (list(SCALINGS),),
    "unfold_batch": _BOOL,
    "faceid_v2": _BOOL,
    "weight_v2": _FLOAT3,
    "embeds": ("EMBEDS",),
    "clip_vision_mask": ("MASK",),
    "short_side_tiles": ("INT", {"default": 1, "min": 0, "max": 12, "step": 1}),
    "tile_weight": ("FLOAT", {"default": 0.6, "min": 0.0, "max": 1.0, "step": 0.05}),
}
_TIMED = "weight_type start_at end_at"


class FirstApplyNode(Compatible):
    """Every method takes every keyword, as other packs call it, and returns (model, mask, faces)."""

    TITLE = "Apply IPAdapter"
    REQUIRED = f"ipadapter clip_vision image model weight noise {_TIMED} unfold_batch"
    OPTIONAL = "attn_mask"
    OWN = _OWN
    FREE = ""
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter"

    def apply_ipadapter(
        self,
        ipadapter: Any,
        model: Any,
        weight: float,
        clip_vision: Any = None,
        image: Tensor | None = None,
        weight_type: str = "original",
        noise: float | None = None,
        embeds: Tensor | None = None,
        attn_mask: Tensor | None = None,
        start_at: float = 0.0,
        end_at: float = 1.0,
        unfold_batch: bool = False,
        insightface: Any = None,
        faceid_v2: bool = False,
        weight_v2: float = 1.0,
        clip_vision_mask: Tensor | None = None,
        short_side_tiles: int = 0,
        tile_weight: float = 0.0,
        tile_blur: int = 0,
    ) -> tuple[Any, Tensor | None, Tensor | None]:
        adapter = _adapter_of_version(ipadapter, faceid_v2)
        host.check_model(model, adapter)
        extractor = FeatureExtractor(
            adapter.spec, clip_vision, insightface, structure=float(weight_v2), face_size=FACE_SIZE
        )
        settings = LegacyApplySettings(
            weight, "linear", start_at, end_at, SCALINGS[weight_type].value, attn_mask,
            unfold=unfold_batch, interpolation="bicubic", first_generation=True,
        )  # fmt: skip
        if short_side_tiles:
            return (
                _tiled(model, adapter, extractor, image, noise, settings, short_side_tiles, tile_weight),
                None,
                None,
            )
        cond, uncond, faces = _features(extractor, image, embeds, noise, unfold_batch)
        prompt = prompt_from_features(adapter, cond, uncond, unfold_batch and cond.count > 1)
        return add(model, {Source.IMAGE: prompt}, settings), attn_mask, faces


def _adapter_of_version(value: Any, v2: bool) -> host.HostAdapter:
    """For FaceID Plus the widget decides the version, not the file."""
    adapter = adapter_of(value)
    wanted = Variant.FACEID_PLUS_V2 if v2 else Variant.FACEID_PLUS
    if adapter.spec.variant is wanted or adapter.spec.variant not in (
        Variant.FACEID_PLUS,
        Variant.FACEID_PLUS_V2,
    ):
        return adapter
    return host.HostAdapter(Checkpoint(adapter.name, adapter["image_proj"], adapter["ip_adapter"]), wanted)


def _features(
    extractor: FeatureExtractor,
    image: Tensor | None,
    embeds: Tensor | None,
    noise: float | None,
    unfold: bool,
) -> tuple[Features, Features | None, Tensor | None]:
    if embeds is not None:
        positive, negative = unstacked(embeds, extractor.spec)
        features = features_from_embeds(extractor, positive, negative)
    elif image is None:
        raise MismatchError("neither an image nor embeds came. Connect one of them.")
    else:
        features = extract_features(extractor, image, None, "concat", unfold)
        if noise and extractor.spec.feature is not Feature.NONE:
            shown = image if features.faces is None else features.faces
            return (
                features.cond,
                negative_features(extractor, first_generation_noise(shown, noise)),
                features.faces,
            )
    return features.cond, features.uncond, features.faces


def _tiled(
    model: Any,
    adapter: host.HostAdapter,
    extractor: FeatureExtractor,
    image: Tensor | None,
    noise: float | None,
    settings: LegacyApplySettings,
    short_side_tiles: int,
    tile_weight: float,
) -> Any:
    """One prompt for each tile of the first picture, in its own place."""
    if image is None:
        raise MismatchError("no image came. Connect one.")
    tiles, masks = masked_tiles(image, short_side_tiles, tile_weight, exact_legacy())
    for tile, mask in zip(tiles.split(1), masks, strict=True):
        cond, uncond, _ = _features(extractor, tile, None, noise, False)
        prompt = prompt_from_features(adapter, cond, uncond, False)
        model = add(model, {Source.IMAGE: prompt}, replace(settings, mask=mask[None]))
    return model


class FirstFaceNode(FirstApplyNode):
    TITLE = "Apply IPAdapter FaceID"
    REQUIRED = f"ipadapter clip_vision insightface image model weight noise {_TIMED} faceid_v2 weight_v2 unfold_batch"


class FirstEncodedNode(FirstApplyNode):
    TITLE = "Apply IPAdapter from Encoded"
    REQUIRED = f"ipadapter embeds model weight {_TIMED} unfold_batch"


class FirstTilesNode(FirstApplyNode):
    TITLE = "IPAdapter Masked Tiles (experimental)"
    REQUIRED = f"ipadapter clip_vision image model weight noise {_TIMED} short_side_tiles tile_weight"
    OPTIONAL = ""
    OWN = _OWN | {"weight": ("FLOAT", {"default": 0.7, "min": -1, "max": 3, "step": 0.05})}


class LegacyEncoderNode(Compatible):
    """IPAdapterEncoder of the first generation: its id means another node today, so graphs are retyped to this one."""

    TITLE = "Encode IPAdapter Image"
    REQUIRED = "clip_vision image_1 ipadapter_plus noise weight_1"
    OPTIONAL = "image_2 image_3 image_4 weight_2 weight_3 weight_4"
    OWN = {
        "noise": _NOISE,
        "ipadapter_plus": _BOOL,
        **dict.fromkeys(("image_1", "image_2", "image_3", "image_4"), ("IMAGE",)),
        **dict.fromkeys(("weight_1", "weight_2", "weight_3", "weight_4"), _FLOAT_0_1),
    }
    RETURN_TYPES = ("EMBEDS",)
    FUNCTION = "preprocess"

    def preprocess(
        self,
        clip_vision: Any,
        image_1: Tensor,
        ipadapter_plus: bool,
        noise: float,
        weight_1: float,
        image_2: Tensor | None = None,
        image_3: Tensor | None = None,
        image_4: Tensor | None = None,
        weight_2: float = 1.0,
        weight_3: float = 1.0,
        weight_4: float = 1.0,
    ) -> tuple[Tensor]:
        """Positive and negative features, stacked. Weights count twice, as they did then."""
        pairs = [(image_1, weight_1), (image_2, weight_2), (image_3, weight_3), (image_4, weight_4)]
        given = [(image, weight) for image, weight in pairs if image is not None]
        image = torch.cat([_as_large_as(image_1, picture) for picture, _ in given])
        weights = torch.tensor([weight for picture, weight in given for _ in range(len(picture))]) ** 2
        positive = host.encoder_output(clip_vision, image, ipadapter_plus)
        positive = positive * weights.view(-1, *[1] * (positive.ndim - 1))
        if noise:
            shown = first_generation_noise(image, noise)
        elif ipadapter_plus:
            shown = torch.zeros(1, 224, 224, 3)
        else:
            return (torch.stack((positive, torch.zeros_like(positive))),)
        negative = host.encoder_output(clip_vision, shown, ipadapter_plus)
        return (torch.stack((positive, negative.expand_as(positive))),)


def _as_large_as(first: Tensor, picture: Tensor) -> Tensor:
    if picture.shape[1:] == first.shape[1:]:
        return picture
    return host.scaled_to(picture, first.shape[2], first.shape[1])


CLASSES = {
    "IPAdapterApply": FirstApplyNode,
    "IPAdapterApplyFaceID": FirstFaceNode,
    "IPAdapterApplyEncoded": FirstEncodedNode,
    "IPAdapterTilesMasked": FirstTilesNode,
    "ImagePromptLegacyEncoder": LegacyEncoderNode,
}
