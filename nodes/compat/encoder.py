"""Embeds of pictures, and applying them: the encoder and embeds nodes of the de-facto pack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import host
from ...host import folders
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.spec import Feature, Identity
from .apply import AnyApplyNode
from .arithmetic.two_image_weights import Source
from .encoding import FeatureExtractor, features_from_embeds, negative_features, unstacked
from .inputs import WEIGHT_TO_3, Compatible
from .request import LegacyApplySettings, Weight, add, prompt_from_features
from .values import adapter_of, clip_vision_of


class EncoderNode(Compatible):
    TITLE = "IPAdapter Encoder"
    REQUIRED, OPTIONAL = "ipadapter image weight", "mask clip_vision"
    OWN = {"weight": ("FLOAT", {"default": 1.0, "min": -1.0, "max": 3.0, "step": 0.01}), "mask": ("MASK",)}
    RETURN_TYPES = ("EMBEDS", "EMBEDS")
    RETURN_NAMES = ("pos_embed", "neg_embed")
    FUNCTION = "encode"

    def encode(
        self,
        ipadapter: Any,
        image: Tensor,
        weight: float,
        mask: Tensor | None = None,
        clip_vision: Any = None,
    ) -> tuple[Tensor, Tensor]:
        adapter = adapter_of(ipadapter)
        extractor = FeatureExtractor(adapter.spec, clip_vision_of(ipadapter, clip_vision))
        if extractor.spec.feature is Feature.NONE or extractor.spec.identity is not Identity.NONE:
            raise MismatchError(
                f"{adapter.name} reads faces, which this node cannot encode. Use IPAdapter FaceID."
            )
        negative = negative_features(extractor, None)
        if mask is not None and mask.shape[0] not in (1, image.shape[0]):
            raise MismatchError(
                f"{mask.shape[0]} masks came for {image.shape[0]} images; connect one mask, or one for each image."
            )
        with folders.suggest_encoder(extractor.spec):
            features = host.encode_as_host(extractor.clip_vision, extractor.spec, image, mask) * weight
        if negative is None or extractor.spec.feature is Feature.IMAGE_EMBEDS:
            return features, torch.zeros_like(features)
        return features, negative.known_encoder


class EmbedsNode(AnyApplyNode):
    TITLE = "IPAdapter Embeds"
    REQUIRED = "model ipadapter pos_embed weight weight_type start_at end_at embeds_scaling"
    OPTIONAL = "neg_embed attn_mask clip_vision"
    OWN = {"weight": WEIGHT_TO_3}

    def apply_ipadapter(
        self,
        model: Any,
        ipadapter: Any,
        pos_embed: Tensor,
        weight: Weight,
        weight_type: str,
        start_at: float,
        end_at: float,
        neg_embed: Tensor | None = None,
        attn_mask: Tensor | None = None,
        clip_vision: Any = None,
        embeds_scaling: str = "V only",
    ) -> tuple[Any, None]:
        adapter = adapter_of(ipadapter)
        host.check_model(model, adapter)
        extractor = FeatureExtractor(adapter.spec, clip_vision_of(ipadapter, clip_vision))
        positive, negative = unstacked(pos_embed, adapter.spec)
        features = features_from_embeds(extractor, positive, negative if neg_embed is None else neg_embed)
        settings = LegacyApplySettings(
            weight, weight_type, start_at, end_at, embeds_scaling, attn_mask, unfold=self.unfold_batch
        )
        prompt = prompt_from_features(adapter, features.cond, features.uncond, self.unfold_batch)
        return add(model, {Source.IMAGE: prompt}, settings), None


class EmbedsBatchNode(EmbedsNode):
    TITLE = "IPAdapter Embeds Batch"
    unfold = True


CLASSES = {
    "IPAdapterEncoder": EncoderNode,
    "IPAdapterEmbeds": EmbedsNode,
    "IPAdapterEmbedsBatch": EmbedsBatchNode,
}
