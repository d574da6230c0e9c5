"""Pictures, faces and ready-made embeds -> features, as the de-facto pack reads them.

Pictures go through the host's own preprocessing, and what stands for 'no image' is a black picture where the encoder's
grid is read: both are what shared graphs were tuned with.
"""

from __future__ import annotations

from collections.abc import Callable
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
from .arithmetic.combine_features import blend
from .arithmetic.enhance import Enhancement, enhanced
from .settings import exact_legacy

DETECTION_SIZES = range(640, 256, -64)  # 640, 576, ..., 320


@dataclass(frozen=True, eq=False)
class Eyes:
    """What looks at pictures for an adapter: the encoder, and how finely (tiles of the ClipVision Enhancer)."""

    spec: AdapterSpec
    clip_vision: Any
    insightface: Any = None
    enhancement: Enhancement | None = None
    structure: float = 1.0
    face_size: int = 0  # of aligned faces; as the adapter was trained, without it

    @property
    def plain(self) -> Eyes:
        return replace(self, enhancement=None)


@dataclass(frozen=True, eq=False)
class Seen:
    """Features of pictures and of their negatives; face pictures (n, H, W, 3) where faces were looked for."""

    cond: Features
    uncond: Features
    faces: Tensor | None = None


def look(eyes: Eyes, image: Tensor, negative: Tensor | None, combine: str, unfold: bool) -> Seen:
    """Features of `image` and of what stands against it; combined into one picture's unless they stay side by side."""
    faces = identity = None
    if eyes.spec.identity is not Identity.NONE:
        identity, faces = find_faces(eyes, image)
        image = faces
    encoder = None if eyes.spec.feature is Feature.NONE else encode(eyes, image, unfold)
    cond = Features(encoder, identity, eyes.structure)
    uncond = against(eyes, negative)
    if combine == "concat" or unfold or cond.count == 1:
        return Seen(cond, uncond, faces)
    return Seen(_combined(cond, combine), uncond.rows(0, 1), faces)


def _combined(features: Features, mode: str) -> Features:
    encoder, identity = (
        None if t is None else blend(t, mode, exact_legacy()) for t in (features.encoder, features.identity)
    )
    return Features(encoder, identity, features.structure)


def encode(eyes: Eyes, image: Tensor, unfold: bool = False) -> Tensor:
    """Encoder features of pictures, finer where the ClipVision Enhancer asks for it."""
    if eyes.clip_vision is None:
        raise ImagePromptError(
            f"this {eyes.spec.variant.value} adapter looks at pictures with {eyes.spec.encoder}, and no CLIP vision model "
            "came. Connect clip_vision, or use the unified loader."
        )
    with folders.naming_encoder(eyes.spec):
        see: Callable[[Tensor], Tensor] = lambda pictures: host.encode_as_host(  # noqa: E731
            eyes.clip_vision, eyes.spec, pictures
        )
        return (
            enhanced(image, see, eyes.enhancement, unfold, exact_legacy()) if eyes.enhancement else see(image)
        )


def against(eyes: Eyes, negative: Tensor | None) -> Features:
    """What the negative side sees: the picture given, else black or nothing. A face embedding is zero in any case."""
    spec = eyes.spec
    identity = torch.zeros(1, spec.identity_width) if spec.identity is not Identity.NONE else None
    if spec.feature is Feature.NONE:
        return Features(None, identity, eyes.structure)
    if negative is None and spec.unconditional is Unconditional.ZERO_FEATURES:
        return Features(torch.zeros(1, spec.feature_width), identity, eyes.structure)
    shown = torch.zeros(1, 224, 224, 3) if negative is None else negative
    encoder = encode(eyes.plain, shown)
    if identity is not None:
        identity = identity.expand(len(encoder), -1)
    return Features(encoder, identity, eyes.structure)


def of_embeds(eyes: Eyes, positive: Tensor, negative: Tensor | None) -> Seen:
    """Ready-made features (n, width) or (n, encoder tokens, width), as the encoder nodes give them."""
    if eyes.spec.identity is not Identity.NONE:
        raise MismatchError(
            f"a {eyes.spec.variant.value} adapter reads faces, not embeds of pictures. Use IPAdapter FaceID."
        )
    for embeds in (positive, negative):
        _require_read(embeds, eyes.spec)
    return Seen(Features(positive), against(eyes, None) if negative is None else Features(negative))


def _require_read(embeds: Tensor | None, spec: AdapterSpec) -> None:
    """Raise MismatchError for embeds that this adapter does not read."""
    ndim = 2 if spec.feature is Feature.IMAGE_EMBEDS else 3
    if embeds is not None and (embeds.shape[-1] != spec.feature_width or embeds.ndim != ndim):
        raise MismatchError(
            f"embeds of shape {tuple(embeds.shape)} came, but this {spec.variant.value} adapter reads "
            f"{spec.feature.value} of width {spec.feature_width}. Encode them with this adapter connected."
        )


def unstacked(embeds: Tensor, spec: AdapterSpec) -> tuple[Tensor, Tensor | None]:
    """(positive, negative) of embeds of this generation, (2, n, ...); of later ones the positive alone."""
    stacked = embeds.ndim == (3 if spec.feature is Feature.IMAGE_EMBEDS else 4) and embeds.shape[0] == 2
    return (embeds[0], embeds[1]) if stacked else (embeds, None)


def find_faces(eyes: Eyes, image: Tensor) -> tuple[Tensor, Tensor]:
    """(embeddings (n, 512), face pictures (n, size, size, 3)) of the first face of each picture."""
    if eyes.insightface is None:
        raise ImagePromptError(
            f"a {eyes.spec.variant.value} adapter reads faces, and no face model came. Connect insightface, from "
            "IPAdapter InsightFace Loader or the FaceID unified loader."
        )
    found = [_face(eyes, picture, number) for number, picture in enumerate(image)]
    embeddings, pictures = zip(*found, strict=True)
    return torch.stack(embeddings), torch.stack(pictures)


def _face(eyes: Eyes, picture: Tensor, number: int) -> tuple[Tensor, Tensor]:
    pixels = (picture[..., :3] * 255).clamp(0, 255).to("cpu", torch.uint8).numpy()
    reversed_channels = np.ascontiguousarray(pixels[..., ::-1])
    for size in DETECTION_SIZES:
        eyes.insightface.det_model.input_size = (size, size)
        faces = eyes.insightface.get(reversed_channels)
        if faces:
            raw = eyes.spec.identity is Identity.RAW
            embedding = faces[0].embedding if raw else faces[0].normed_embedding
            crop = align(
                pixels, np.asarray(faces[0].kps, dtype=np.float32), eyes.face_size or eyes.spec.crop_size
            )
            identity = torch.from_numpy(np.asarray(embedding)).float()
            require_finite(identity, f"the face in picture {number + 1}")
            return identity, torch.from_numpy(crop).float() / 255
    raise ImagePromptError(
        f"InsightFace: no face detected in picture {number + 1}; sizes {DETECTION_SIZES[0]} to {DETECTION_SIZES[-1]} were "
        "tried. Use a picture with a clear face, or one with more room around it."
    )
