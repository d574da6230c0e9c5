"""CLIP vision: pictures and faces -> encoder features -> an image prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import comfy.model_management as mm
import comfy.utils
import torch
from torch import Tensor
from torch.func import functional_call

from ..ipadapter_core.errors import MismatchError, WrongEncoderError
from ..ipadapter_core.faces.pick import Faces
from ..ipadapter_core.features import Features
from ..ipadapter_core.pictures.preprocessing import (
    Fit,
    Position,
    central_square,
    pixel_values,
    resized_positions,
)
from ..ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from ..ipadapter_core.spec import ENCODERS, AdapterSpec, Feature, Identity, Unconditional
from ..ipadapter_core.values import described, refuse_strip, require_finite
from .adapters import HostAdapter, progress_bar

ENCODE_BATCH = 16
LONG = 8  # times as long as wide: cut to a square, such pictures are large on the way
_POSITIONS = "vision_model.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class Reference:
    """Pictures to encode: image (n, H, W, c) in 0..1, how they meet the square encoder, and the part to look at."""

    image: Tensor
    fit: Fit = Fit.CROP
    position: Position = Position.CENTER
    mask: Tensor | None = None

    def rows(self, part: slice) -> Reference:
        """Some of the pictures, with their masks; a single mask is for all."""
        each = self.mask is not None and self.mask.ndim == 3 and len(self.mask) == len(self.image)
        return replace(self, image=self.image[part], mask=self.mask[part] if each else self.mask)


@dataclass(frozen=True)
class Encoding:
    """How pictures become a prompt. image_weights: none, one for all or one for each. encoder_size: side in pixels
    at which the encoder looks, 0 for its own. structure: weight of the view of a face beside its identity."""

    arrange: Arrange = Arrange.TOGETHER
    image_weights: Sequence[float] = ()
    encoder_size: int = 0
    structure: float = 1.0


PLAIN = Encoding()


def load_clip_vision(path: str | Path) -> Any:
    """An encoder by the host's own loader."""
    encoder = comfy.clip_vision.load(str(path))
    if encoder is None:
        raise MismatchError(
            f"ComfyUI does not know the CLIP vision model in {path}. Get the file named in the README."
        )
    return encoder


def encode_prompt(
    adapter: HostAdapter,
    clip_vision: Any,
    reference: Reference,
    negative: Reference | None = None,
    encoding: Encoding = PLAIN,
) -> ImagePrompt:
    """Encode, project, and pair with the unconditional tokens, or with those of the negative pictures."""
    spec, size = adapter.spec, encoding.encoder_size
    _require_no_face(adapter)
    if clip_vision is None:
        raise MismatchError(f"{adapter.name} looks at pictures with {spec.encoder}. Connect clip_vision.")
    cond = encode_images(clip_vision, spec, reference, size)
    uncond = (
        encode_images(clip_vision, spec, negative, size)
        if negative
        else unconditional_features(clip_vision, spec, size)
    )
    tokens = adapter.project(Features(torch.cat((cond, uncond))))
    note = {
        "images": str(len(cond)),
        "negative images": str(len(uncond) if negative else 0),
        "fit": reference.fit.value,
    }
    pair = tokens[: len(cond)], tokens[len(cond) :]
    return make_prompt(adapter, *pair, encoding.arrange, encoding.image_weights, note)


def _require_no_face(adapter: HostAdapter) -> None:
    if adapter.spec.identity is not Identity.NONE:
        raise MismatchError(
            f"{adapter.name} is a {adapter.spec.variant.value} adapter: it reads a face embedding, not a whole picture. "
            "Use Image Prompt: Find Faces and Image Prompt: Encode Face."
        )


def encode_faces(
    adapter: HostAdapter, clip_vision: Any, faces: Faces, encoding: Encoding = PLAIN
) -> ImagePrompt:
    """A prompt of faces: one row of tokens for each group. A group without a face adds nothing to its picture."""
    spec = adapter.spec
    if spec.identity is Identity.NONE:
        raise MismatchError(
            f"{adapter.name} is a {spec.variant.value} adapter and reads no face embedding. Connect face_images of "
            "Image Prompt: Find Faces to Image Prompt: Encode Image, or load a FaceID adapter."
        )
    faces, weights = _steering(faces, encoding)
    identity = faces.embeddings(normalise=spec.identity is Identity.NORMALISED)
    require_finite(identity, "faces")
    view, nothing = _views(adapter, clip_vision, faces, encoding.encoder_size)
    tokens = adapter.project(Features(view, identity, encoding.structure))
    no_face = adapter.project(Features(nothing, torch.zeros(1, spec.identity_width), encoding.structure))
    note = {"faces": str(sum(faces.present))}
    return make_prompt(adapter, tokens, no_face, encoding.arrange, weights, note)


def _steering(faces: Faces, encoding: Encoding) -> tuple[Faces, list[float]]:
    """The groups that become rows, and the weight of each: 0 where there is no face.

    All together, groups without a face are left out; one per picture, they keep their place.
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


def _views(
    adapter: HostAdapter, clip_vision: Any, faces: Faces, size: int
) -> tuple[Tensor | None, Tensor | None]:
    """Encoder features of the aligned faces (groups, tokens, width), and of no face; None where none are read."""
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
    seen = encode_images(clip_vision, spec, Reference(faces.crops(spec.crop_size)), size)
    parts = seen.split([len(group) for group in faces.groups])
    return torch.cat([part.mean(0, keepdim=True) if len(part) else nothing for part in parts]), nothing


def encode_images(clip_vision: Any, spec: AdapterSpec, reference: Reference, size: int = 0) -> Tensor:
    """The encoder features that `spec` asks for, fp32, in bounded batches with the host's progress bar."""
    size, mean, std = _preprocessing(clip_vision, spec, size)
    if reference.fit is Fit.CROP:
        refuse_strip(reference.image, "the image")

    def values(part: slice) -> Tensor:
        rows = reference.rows(part)
        return pixel_values(rows.image, size, mean, std, rows.fit, rows.position, rows.mask)

    return _in_batches(clip_vision, spec, values, reference.image)


def _in_batches(
    clip_vision: Any, spec: AdapterSpec, values: Callable[[slice], Tensor], images: Tensor
) -> Tensor:
    """values: pixel values of some of the pictures, made only when their turn comes; long ones are resized one by one."""
    count, (height, width) = len(images), images.shape[1:3]
    step = 1 if max(height, width) > LONG * min(height, width) else ENCODE_BATCH
    progress = progress_bar(count)
    parts: list[Tensor] = []
    for start in range(0, count, step):
        chunk = values(slice(start, start + step))
        parts.append(_features(clip_vision, spec, chunk))
        progress.update(len(chunk))
    return torch.cat(parts)


def encode_as_host(clip_vision: Any, spec: AdapterSpec, images: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same of pictures that the host's own preprocessing cuts to a square, which rounds sizes where ours cuts them.

    mask (1 or n, H, W): where it is 0 the encoder sees nothing; the square at its centre counts.
    """
    size = _preprocessing(clip_vision, spec, 0)[0]
    reference = Reference(images, mask=mask)
    refuse_strip(images, "the image")

    def values(part: slice) -> Tensor:
        rows = reference.rows(part)
        seen = _as_host(clip_vision, rows.image, size)
        return seen if rows.mask is None else seen * central_square(rows.mask.cpu().float(), size)[:, None]

    return _in_batches(clip_vision, spec, values, images)


def _as_host(clip_vision: Any, images: Tensor, size: int) -> Tensor:
    prepare = getattr(comfy.clip_vision, "clip_preprocess", None) or comfy.clip_model.clip_preprocess
    takes = inspect.signature(prepare).parameters
    own = {"mean": getattr(clip_vision, "image_mean", None), "std": getattr(clip_vision, "image_std", None)}
    more = {name: value for name, value in own.items() if name in takes and value is not None}
    return prepare(images.cpu().float(), size=size, **more).float()


def encoder_output(clip_vision: Any, images: Tensor, grid: bool) -> Tensor:
    """Penultimate hidden states (grid) or image_embeds of pictures, for no adapter in particular."""
    size = _constants(clip_vision)[0]
    refuse_strip(images, "the image")
    values = (_as_host(clip_vision, chunk, size) for chunk in images.split(ENCODE_BATCH))
    parts = [_run(clip_vision, chunk)[1 if grid else 2] for chunk in values]
    return torch.cat([_read(part) for part in parts])


def features_for_training(clip_vision: Any, images: Tensor | None, grid: bool) -> Tensor:
    """The same preprocessed as our prompts are, before there is an adapter. None: of pixels that are zero after it."""
    size, mean, std = _constants(clip_vision)
    if images is None:
        values = torch.zeros(1, 3, size, size)
    else:
        values = pixel_values(images, size, mean, std, Fit.CROP, Position.CENTER, None)
    return _run(clip_vision, values)[1 if grid else 2]


def scaled_to(images: Tensor, width: int, height: int) -> Tensor:
    """Pictures (n, H, W, c) cut at the centre and scaled, as the host does to bring batches together."""
    before = images.shape[1:3]
    kept = (min(before[0], before[1] * height / width), min(before[1], before[0] * width / height))
    if any(part <= 1 < side for part, side in zip(kept, before, strict=True)):
        raise MismatchError(
            f"a picture of {before[1]} x {before[0]} pixels cannot be cut to the aspect of one of {width} x {height}. Give "
            "pictures of about the same aspect."
        )
    resized = comfy.utils.common_upscale(images.movedim(-1, 1), width, height, "bilinear", "center")
    return resized.movedim(1, -1)


def unconditional_features(clip_vision: Any, spec: AdapterSpec, size: int = 0) -> Tensor:
    """'No image' as in training: zero features, or features of pixels that are zero after normalisation."""
    if spec.unconditional is Unconditional.ZERO_FEATURES:
        return torch.zeros(1, spec.feature_width)
    size = _preprocessing(clip_vision, spec, size)[0]
    return _features(clip_vision, spec, torch.zeros(1, 3, size, size))


def _preprocessing(
    clip_vision: Any, spec: AdapterSpec, size: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std for this adapter; size 0 is the encoder's own."""
    own, mean, std = _constants(clip_vision)
    if spec.encoder_size not in (None, own):
        raise WrongEncoderError(
            f"this {spec.family} adapter reads {spec.encoder}, which looks at {spec.encoder_size} pixels, but the "
            f"connected CLIP vision model looks at {own}. Load {spec.encoder} in CLIPVisionLoader."
        )
    return size or own, mean, std


def _constants(clip_vision: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std of the encoder. Hosts before 2024-11 knew OpenAI's CLIP constants only."""
    if not (hasattr(clip_vision, "patcher") and hasattr(clip_vision, "model")):
        raise MismatchError(
            f"clip_vision is {described(clip_vision)}. Connect CLIPVisionLoader, or a loader that gives an encoder."
        )
    mean = getattr(clip_vision, "image_mean", (0.48145466, 0.4578275, 0.40821073))
    std = getattr(clip_vision, "image_std", (0.26862954, 0.26130258, 0.27577711))
    return getattr(clip_vision, "image_size", 224), tuple(mean), tuple(std)


def _features(clip_vision: Any, spec: AdapterSpec, values: Tensor) -> Tensor:
    """What the adapter reads of the encoder's outputs, fp32. Raises WrongEncoderError if the width is another."""
    out = _run(clip_vision, values)
    features = out[1] if spec.feature is Feature.PENULTIMATE else out[2]
    features = _read(features)
    if features.shape[-1] != spec.feature_width:
        raise WrongEncoderError(
            f"this {spec.variant.value} adapter reads {spec.feature.value} of width {spec.feature_width} ({spec.encoder}), "
            f"but the connected CLIP vision model gives width {features.shape[-1]}{_guess(spec, features)}. "
            f"Load {spec.encoder} in CLIPVisionLoader."
        )
    return features


def _read(features: Tensor) -> Tensor:
    """fp32 where the host keeps results. Raises MismatchError where the encoder gives numbers that are not finite."""
    features = features.to(mm.intermediate_device(), torch.float32)
    require_finite(features, "what the CLIP vision model gives")
    return features


def _run(clip_vision: Any, values: Tensor) -> Any:
    """Run the encoder as the host's encode_image does, on pixel values (n, 3, size, size)."""
    mm.load_model_gpu(clip_vision.patcher)
    inputs = {"pixel_values": values.to(clip_vision.load_device), "intermediate_output": -2}
    with torch.no_grad():
        positions = _positions(clip_vision, values.shape[-1])
        model = clip_vision.model
        return functional_call(model, positions, (), inputs) if positions else model(**inputs)


def _positions(clip_vision: Any, size: int) -> Mapping[str, Tensor]:
    """What stands in for the encoder's position embedding at another size than its own; nothing at its own."""
    own = getattr(clip_vision, "image_size", 224)
    if size == own:
        return {}
    embeddings = getattr(getattr(clip_vision.model, "vision_model", None), "embeddings", None)
    if getattr(embeddings, "class_embedding", None) is None:
        raise MismatchError(
            f"encoder_size {size} needs a CLIP encoder, whose position embedding can be interpolated; the connected "
            f"vision model is another kind. Set encoder_size to 0, which is its own {own}."
        )
    patch = embeddings.patch_embedding.kernel_size[0]
    if size < patch:
        raise MismatchError(
            f"encoder_size {size} is less than one patch of the connected encoder, {patch} pixels. Set {patch} or more, "
            f"or 0 for its own {own}."
        )
    return {_POSITIONS: resized_positions(embeddings.position_embedding.weight, own, size, patch)}


def _guess(spec: AdapterSpec, features: Tensor) -> str:
    name = ENCODERS.get((spec.feature, features.shape[-1]))
    return f" (it looks like {name})" if name else ""
