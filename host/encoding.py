"""Pictures or faces, an encoder and an adapter -> an image prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.faces.selection import Faces
from ..ipadapter_core.features import Features
from ..ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from ..ipadapter_core.spec import AdapterSpec, Feature, Identity, Unconditional
from ..ipadapter_core.values import require_finite
from .adapters import HostAdapter, progress_bar
from .vision import Reference, encode_images, unconditional_features


@dataclass(frozen=True)
class Encoding:
    """How features become a prompt.

    image_weights: none, one for all or one for each. encoder_size: side of the encoder's input in pixels, 0 for its own.
    structure: weight of the encoder features of a face beside its identity embedding. no_image: what stands for 'no image'
    on the negative side, None for what stood for it in the adapter's training.
    """

    arrange: Arrange = Arrange.TOGETHER
    image_weights: Sequence[float] = ()
    encoder_size: int = 0
    structure: float = 1.0
    no_image: Unconditional | None = None


DEFAULT_ENCODING = Encoding()


def encode_prompt(
    adapter: HostAdapter,
    clip_vision: Any,
    reference: Reference | Sequence[Reference],
    negative: Reference | None = None,
    encoding: Encoding = DEFAULT_ENCODING,
) -> ImagePrompt:
    """A prompt of pictures: their tokens, and the unconditional ones or those of the negative pictures.

    reference: several where the pictures are of several sizes. Raises MismatchError where adapter, encoder and pictures
    do not fit.
    """
    spec, size = adapter.spec, encoding.encoder_size
    _refuse_face_adapter(adapter)
    if clip_vision is None:
        raise MismatchError(f"{adapter.name} looks at pictures with {spec.encoder}. Connect clip_vision.")
    references = [reference] if isinstance(reference, Reference) else [*reference]
    progress = progress_bar(sum(len(each.image) for each in references))
    cond = torch.cat([encode_images(clip_vision, spec, each, size, progress) for each in references])
    fit = references[0].fitted_for(clip_vision).fit
    if negative:
        uncond = encode_images(clip_vision, spec, negative, size)
    else:
        uncond = no_image_features(clip_vision, spec, cond, size, encoding.no_image)
    tokens = adapter.project(Features(torch.cat((cond, uncond))))
    note = {
        "images": str(len(cond)),
        "negative images": str(len(uncond) if negative else 0),
        "fit": fit.value if fit else "",
    }
    pair = tokens[: len(cond)], tokens[len(cond) :] if len(uncond) else tokens[:1, :0]
    return make_prompt(adapter, *pair, encoding.arrange, encoding.image_weights, note)


def no_image_features(
    clip_vision: Any, spec: AdapterSpec, like: Tensor, size: int = 0, kind: Unconditional | None = None
) -> Tensor:
    """What stands for 'no image', (1, ...) as the features `like` (n, ...) of pictures; (0, ...) to add nothing.

    kind: None for that of the adapter's training.
    """
    kind = kind or spec.unconditional
    if kind is Unconditional.NOTHING and spec.entry.timed:
        raise MismatchError(
            f"no_image is 'nothing', and this {spec.family} adapter attends to the picture's own keys on the negative "
            "side too. Use 'zero features', as its authors do."
        )
    if kind is Unconditional.NOTHING:
        return like[:0]
    if kind is Unconditional.ZERO_FEATURES:
        return torch.zeros_like(like[:1])
    return unconditional_features(clip_vision, replace(spec, unconditional=kind), size)


def _refuse_face_adapter(adapter: HostAdapter) -> None:
    if adapter.spec.identity is not Identity.NONE:
        raise MismatchError(
            f"{adapter.name} is a {adapter.spec.variant.value} adapter: it reads a face embedding, not a whole picture. "
            "Use Image Prompt: Find Faces and Image Prompt: Encode Face."
        )


def encode_faces(
    adapter: HostAdapter, clip_vision: Any, faces: Faces, encoding: Encoding = DEFAULT_ENCODING
) -> ImagePrompt:
    """A prompt of faces: one row of tokens for each group. A group without a face adds nothing to its picture.

    Raises MismatchError where adapter, encoder and faces do not fit.
    """
    spec = adapter.spec
    if spec.identity is Identity.NONE:
        raise MismatchError(
            f"{adapter.name} is a {spec.variant.value} adapter and reads no face embedding. Connect face_images of "
            "Image Prompt: Find Faces to Image Prompt: Encode Image, or load a FaceID adapter."
        )
    faces, weights = _weighted_groups(faces, encoding)
    identity = faces.embeddings(normalise=spec.identity is Identity.NORMALISED)
    require_finite(identity, "faces")
    encoder, nothing = _face_features(adapter, clip_vision, faces, encoding.encoder_size)
    tokens = adapter.project(Features(encoder, identity, encoding.structure))
    no_face = adapter.project(Features(nothing, torch.zeros(1, spec.identity_width), encoding.structure))
    note = {"faces": str(sum(faces.present))}
    return make_prompt(adapter, tokens, no_face, encoding.arrange, weights, note)


def _weighted_groups(faces: Faces, encoding: Encoding) -> tuple[Faces, list[float]]:
    """The groups that become rows of tokens, and the weight of each: 0 where there is no face.

    All together, groups without a face are left out; one per picture, they keep their position.
    """
    weights, count = encoding.image_weights, len(faces.groups)
    if len(weights) not in (0, 1, count):
        raise MismatchError(
            f"{len(weights)} image weights for {count} faces; give one for all, one for each, or none."
        )
    every = [*weights] if len(weights) == count else [*(weights or (1.0,))] * count
    pairs = list(zip(faces.groups, every, strict=True))
    if encoding.arrange is Arrange.TOGETHER:
        pairs = [pair for pair in pairs if pair[0]] or pairs[:1]
    groups = tuple(group for group, _ in pairs)
    return replace(faces, groups=groups), [weight if group else 0.0 for group, weight in pairs]


def _face_features(
    adapter: HostAdapter, clip_vision: Any, faces: Faces, size: int
) -> tuple[Tensor | None, Tensor | None]:
    """Encoder features of the aligned faces (groups, tokens, width), and of no face; None where the adapter reads none."""
    spec = adapter.spec
    if spec.feature is Feature.NONE:
        return None, None
    if clip_vision is None:
        raise MismatchError(
            f"{adapter.name} is a {spec.variant.value} adapter, which also looks at the face with {spec.encoder}. "
            "Connect clip_vision."
        )
    nothing = unconditional_features(clip_vision, spec, size)
    if not any(faces.present):
        return nothing.expand(len(faces.groups), -1, -1), nothing
    crops = Reference(faces.crops(spec.crop_size))
    parts = encode_images(clip_vision, spec, crops, size).split([len(group) for group in faces.groups])
    return torch.cat([part.mean(0, keepdim=True) if len(part) else nothing for part in parts]), nothing
