"""Pictures, faces and ready-made embeds -> features, as the de-facto pack reads them.

Pictures go through the host's own preprocessing, and 'no image' is a black picture where the encoder's grid is read: both
are what shared graphs were tuned with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import host
from ...host import folders
from ...ipadapter_core.errors import ImagePromptError, MismatchError
from ...ipadapter_core.faces.identity import align
from ...ipadapter_core.features import Features
from ...ipadapter_core.spec import AdapterSpec, Feature, Identity, Unconditional
from ...ipadapter_core.values import require_finite
from .arithmetic.combine_features import combine_features
from .arithmetic.enhance import Enhancement, enhanced
from .settings import exact_legacy

# 640, 576, ..., 320
DETECTION_SIZES = range(640, 256, -64)


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """What computes the features that an adapter reads: the encoder, the face model, and how they are used.

    enhancement: tiles of the ClipVision Enhancer. structure: as in Features. face_size: side of aligned faces in pixels,
    0 for that of the adapter's training.
    """

    spec: AdapterSpec
    clip_vision: Any
    insightface: Any = None
    enhancement: Enhancement | None = None
    structure: float = 1.0
    face_size: int = 0

    @property
    def without_tiles(self) -> FeatureExtractor:
        return replace(self, enhancement=None)


@dataclass(frozen=True, eq=False)
class CondFeatures:
    """Features of the positive and of the negative side, None where nothing is to be added there.

    faces: aligned pictures (n, H, W, 3) where faces were detected.
    """

    cond: Features
    uncond: Features | None
    faces: Tensor | None = None


def extract_features(
    extractor: FeatureExtractor, image: Tensor, negative: Tensor | None, combine: str, unfold: bool
) -> CondFeatures:
    """Features of pictures (n, H, W, c) and of their negatives; combined to one row unless 'concat' or unfolded."""
    faces = identity = None
    if extractor.spec.identity is not Identity.NONE:
        identity, faces = embed_first_faces(extractor, image)
        image = faces
    encoder = None if extractor.spec.feature is Feature.NONE else encode(extractor, image, unfold)
    cond = Features(encoder, identity, extractor.structure)
    uncond = negative_features(extractor, negative, cond.encoder)
    if combine == "concat" or unfold or cond.count == 1:
        return CondFeatures(cond, uncond, faces)
    return CondFeatures(_combined(cond, combine), uncond and uncond.rows(0, 1), faces)


def _combined(features: Features, mode: str) -> Features:
    encoder, identity = (
        None if rows is None else combine_features(rows, mode, exact_legacy())
        for rows in (features.encoder, features.identity)
    )
    return Features(encoder, identity, features.structure)


def encode(extractor: FeatureExtractor, image: Tensor, unfold: bool = False) -> Tensor:
    """Encoder features of pictures, with those of their tiles where the ClipVision Enhancer asks for them."""
    spec, clip_vision = extractor.spec, extractor.clip_vision
    if clip_vision is None:
        raise MismatchError(
            f"this {spec.variant.value} adapter reads {spec.encoder}, and no CLIP vision model came. Connect clip_vision, "
            "or use the unified loader."
        )

    def features(pictures: Tensor) -> Tensor:
        return host.encode_as_host(clip_vision, spec, pictures)

    with folders.suggest_encoder(spec):
        if extractor.enhancement is None:
            return features(image)
        return enhanced(image, features, extractor.enhancement, unfold, exact_legacy())


def negative_features(
    extractor: FeatureExtractor, negative: Tensor | None, like: Tensor | None = None
) -> Features | None:
    """Of the pictures given, else of black or zeros, or None as the adapter has it. A face embedding is always zero.

    like: encoder features of pictures, of which zero features have the shape; without them the encoder is asked.
    """
    spec = extractor.spec
    if negative is None and spec.unconditional is Unconditional.NOTHING:
        return None
    identity = torch.zeros(1, spec.identity_width) if spec.identity is not Identity.NONE else None
    if spec.feature is Feature.NONE:
        return Features(None, identity, extractor.structure)
    if negative is None and spec.unconditional is Unconditional.ZERO_FEATURES:
        zeros = (
            host.unconditional_features(extractor.clip_vision, spec)
            if like is None
            else torch.zeros_like(like[:1])
        )
        return Features(zeros, identity, extractor.structure)
    pictures = torch.zeros(1, 224, 224, 3) if negative is None else negative
    encoder = encode(extractor.without_tiles, pictures)
    if identity is not None:
        identity = identity.expand(len(encoder), -1)
    return Features(encoder, identity, extractor.structure)


def features_from_embeds(
    extractor: FeatureExtractor, positive: Tensor, negative: Tensor | None
) -> CondFeatures:
    """Ready-made features (n, width) or (n, encoder tokens, width), as the encoder nodes give them."""
    spec = extractor.spec
    if spec.identity is not Identity.NONE:
        raise MismatchError(
            f"a {spec.variant.value} adapter reads faces, not embeds of pictures. Use IPAdapter FaceID."
        )
    for embeds in (positive, negative):
        _require_readable(embeds, spec)
    return CondFeatures(
        Features(positive),
        negative_features(extractor, None, positive) if negative is None else Features(negative),
    )


def _require_readable(embeds: Tensor | None, spec: AdapterSpec) -> None:
    """Raise MismatchError for embeds of a shape that this adapter does not read."""
    ndim = 2 if spec.feature in (Feature.IMAGE_EMBEDS, Feature.POOLED) else 3
    if embeds is not None and (embeds.shape[-1] != spec.feature_width or embeds.ndim != ndim):
        raise MismatchError(
            f"embeds of shape {tuple(embeds.shape)} came, but this {spec.variant.value} adapter reads "
            f"{spec.feature.value} of width {spec.feature_width}. Encode them with this adapter connected."
        )


def unstacked(embeds: Tensor, spec: AdapterSpec) -> tuple[Tensor, Tensor | None]:
    """(positive, negative) of embeds of the first generation, (2, n, ...); of later ones the positive alone."""
    stacked = embeds.ndim == (3 if spec.feature is Feature.IMAGE_EMBEDS else 4) and embeds.shape[0] == 2
    return (embeds[0], embeds[1]) if stacked else (embeds, None)


def embed_first_faces(extractor: FeatureExtractor, image: Tensor) -> tuple[Tensor, Tensor]:
    """(embeddings (n, 512), aligned faces (n, size, size, 3)) of the first face of each picture.

    Raises MismatchError without a face model, ImagePromptError where a picture has no face.
    """
    if extractor.insightface is None:
        raise MismatchError(
            f"a {extractor.spec.variant.value} adapter reads faces, and no face model came. Connect insightface, from "
            "IPAdapter InsightFace Loader or the FaceID unified loader."
        )
    found = [_first_face(extractor, picture, number) for number, picture in enumerate(image)]
    embeddings, faces = zip(*found, strict=True)
    return torch.stack(embeddings), torch.stack(faces)


def _first_face(extractor: FeatureExtractor, picture: Tensor, number: int) -> tuple[Tensor, Tensor]:
    spec = extractor.spec
    pixels = (picture[..., :3] * 255).clamp(0, 255).to("cpu", torch.uint8).numpy()
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    for size in DETECTION_SIZES:
        extractor.insightface.det_model.input_size = (size, size)
        faces = extractor.insightface.get(bgr)
        if faces:
            face = faces[0]
            embedding = face.embedding if spec.identity is Identity.RAW else face.normed_embedding
            key_points = np.asarray(face.kps, dtype=np.float32)
            crop = align(pixels, key_points, extractor.face_size or spec.crop_size)
            identity = torch.from_numpy(np.asarray(embedding)).float()
            require_finite(identity, f"the face in picture {number + 1}")
            return identity, torch.from_numpy(crop).float() / 255
    raise ImagePromptError(
        f"InsightFace: no face detected in picture {number + 1}; sizes {DETECTION_SIZES[0]} to {DETECTION_SIZES[-1]} were "
        "tried. Use a picture with a clear face, or one with more room around it."
    )
