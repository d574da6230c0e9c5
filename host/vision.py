"""CLIP vision: pictures -> what the connected encoder makes of them, preprocessed as an adapter's training did."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
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

from ..ipadapter_core.errors import CheckpointError, MismatchError, SettingError, WrongEncoderError
from ..ipadapter_core.pictures.preprocessing import (
    Fit,
    Position,
    central_square,
    pixel_values,
    resized_positions,
)
from ..ipadapter_core.spec import ENCODERS, AdapterSpec, Feature, Unconditional
from ..ipadapter_core.values import described, refuse_strip, require_finite
from .adapters import progress_bar
from .siglip import pooled_by_head

ENCODE_BATCH = 16
# Of the encoder's outputs: last hidden states, penultimate ones, image_embeds.
_OUTPUTS = {Feature.POOLED: 0, Feature.PENULTIMATE: 1, Feature.IMAGE_EMBEDS: 2}
# Times as long as wide. Cut to a square, such a picture needs much memory on the way.
LONG = 8
_POSITIONS = "vision_model.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class Reference:
    """Pictures to encode: image (n, H, W, c) in 0..1, how each is fitted to a square, and a mask (1 or n, H', W') of the
    part that the encoder sees. fit: None for that of the encoder's training."""

    image: Tensor
    fit: Fit | None = None
    position: Position = Position.CENTER
    mask: Tensor | None = None

    def fitted_for(self, clip_vision: Any) -> Reference:
        """The same with its fit decided."""
        return replace(self, fit=self.fit or _fit_of_training(clip_vision))

    def rows(self, part: slice) -> Reference:
        """A slice of the pictures, with their masks; a single mask is for all."""
        mask = self.mask
        if mask is not None and mask.ndim == 3 and len(mask) == len(self.image):
            mask = mask[part]
        return replace(self, image=self.image[part], mask=mask)


def load_clip_vision(path: str | Path) -> Any:
    """An encoder, opened by the host's own loader. Raises CheckpointError if the host does not know it."""
    encoder = comfy.clip_vision.load(str(path))
    if encoder is None:
        raise CheckpointError(
            f"ComfyUI does not know the CLIP vision model in {path}. Get one that docs/models.md names."
        )
    return encoder


def encode_images(
    clip_vision: Any, spec: AdapterSpec, reference: Reference, size: int = 0, progress: Any = None
) -> Tensor:
    """The encoder features that an adapter reads, (n, width) or (n, tokens, width), fp32.

    Encoded in bounded batches with the host's progress bar, by default one of its own. size: of the encoder's input in
    pixels, 0 for its own. Raises WrongEncoderError, and MismatchError for pictures that cannot be encoded.
    """
    size, mean, std = _preprocessing(clip_vision, spec, size)
    fit = reference.fitted_for(clip_vision).fit or Fit.CROP
    if fit is Fit.CROP:
        refuse_strip(reference.image, "the image")

    def values(part: slice) -> Tensor:
        rows = reference.rows(part)
        return pixel_values(rows.image, size, mean, std, fit, rows.position, rows.mask)

    return _in_batches(clip_vision, spec, values, reference.image, progress)


def prepared_squares(
    clip_vision: Any, spec: AdapterSpec, references: Sequence[Reference], size: int = 0, most: int = 16
) -> Tensor:
    """What the encoder sees of the first pictures, (n, size, size, 3) in 0..1: fitted, and in its mean colour where it is
    shown nothing."""
    size, mean, std = _preprocessing(clip_vision, spec, size)
    made: list[Tensor] = []
    for reference in references:
        rows = reference.fitted_for(clip_vision).rows(slice(0, most - sum(map(len, made))))
        if len(rows.image):
            fit = rows.fit or Fit.CROP
            values = pixel_values(rows.image, size, mean, std, fit, rows.position, rows.mask)
            made.append(values.movedim(1, -1) * torch.tensor(std) + torch.tensor(mean))
    return torch.cat(made).clamp(0, 1)


def _in_batches(
    clip_vision: Any,
    spec: AdapterSpec,
    values: Callable[[slice], Tensor],
    images: Tensor,
    progress: Any = None,
) -> Tensor:
    """values: the pixel values of a slice of the pictures, computed batch by batch. Long pictures are encoded one by one."""
    count, (height, width) = len(images), images.shape[1:3]
    step = 1 if max(height, width) > LONG * min(height, width) else ENCODE_BATCH
    progress = progress or progress_bar(count)
    parts: list[Tensor] = []
    for start in range(0, count, step):
        chunk = values(slice(start, start + step))
        parts.append(_features(clip_vision, spec, chunk))
        progress.update(len(chunk))
    return torch.cat(parts)


def encode_as_host(clip_vision: Any, spec: AdapterSpec, images: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same with the host's own preprocessing, which rounds the sizes of pictures where ours rounds them down.

    mask (1 or n, H, W): where it is 0 the encoder sees its mean colour; the square at its centre is used. Encoders that
    were trained on squashed pictures get them squashed.
    """
    if _fit_of_training(clip_vision) is Fit.SQUASH:
        return encode_images(clip_vision, spec, Reference(images, mask=mask))
    size = _preprocessing(clip_vision, spec, 0)[0]
    reference = Reference(images, mask=mask)
    refuse_strip(images, "the image")

    def values(part: slice) -> Tensor:
        rows = reference.rows(part)
        made = _host_pixel_values(clip_vision, rows.image, size)
        return made if rows.mask is None else made * central_square(rows.mask.cpu().float(), size)[:, None]

    return _in_batches(clip_vision, spec, values, images)


def _host_pixel_values(clip_vision: Any, images: Tensor, size: int) -> Tensor:
    # newer hosts have it in clip_model
    modules: tuple[Any, ...] = (comfy.clip_vision, comfy.clip_model)
    prepare = next(module.clip_preprocess for module in modules if hasattr(module, "clip_preprocess"))
    accepted = inspect.signature(prepare).parameters
    own = {"mean": getattr(clip_vision, "image_mean", None), "std": getattr(clip_vision, "image_std", None)}
    constants = {name: value for name, value in own.items() if name in accepted and value is not None}
    return prepare(images.cpu().float(), size=size, **constants).float()


def encoder_output(clip_vision: Any, images: Tensor, grid: bool) -> Tensor:
    """Penultimate hidden states (grid) or image_embeds of pictures, for no adapter in particular."""
    size = _constants(clip_vision)[0]
    refuse_strip(images, "the image")
    values = (_host_pixel_values(clip_vision, chunk, size) for chunk in images.split(ENCODE_BATCH))
    parts = [_run(clip_vision, chunk)[1 if grid else 2] for chunk in values]
    return torch.cat([_to_host(part) for part in parts])


def features_for_training(
    clip_vision: Any, images: Sequence[Tensor] | None, feature: Feature, fit: Fit | None = Fit.CROP
) -> Tensor:
    """The same with our own preprocessing, of pictures of any sizes, (n, H, W, 3) each, together. None: of pixels that are
    zero after normalisation. fit: None for that of the encoder's own training."""
    size, mean, std = _constants(clip_vision)
    fit = fit or _fit_of_training(clip_vision)
    if images is None:
        values = torch.zeros(1, 3, size, size)
    else:
        values = torch.cat(
            [pixel_values(each, size, mean, std, fit, Position.CENTER, None) for each in images]
        )
    features = _run(clip_vision, values)[_OUTPUTS[feature]]
    return pooled_by_head(clip_vision, features.float()) if feature is Feature.POOLED else features


def scaled_to(images: Tensor, width: int, height: int) -> Tensor:
    """Pictures (n, H, W, c) cropped at the centre and scaled, as the host does to join batches of different sizes.

    Raises MismatchError where a side of the crop would be less than one pixel.
    """
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
        grid = (_grid_tokens(clip_vision, spec),) if spec.feature is Feature.PENULTIMATE else ()
        return torch.zeros(1, *grid, spec.feature_width)
    size, mean, std = _preprocessing(clip_vision, spec, size)
    values = torch.zeros(1, 3, size, size)
    if spec.unconditional is Unconditional.BLACK_PICTURE:
        values = pixel_values(torch.zeros(1, size, size, 3), size, mean, std, Fit.CROP, Position.CENTER, None)
    return _features(clip_vision, spec, values)


def _grid_tokens(clip_vision: Any, spec: AdapterSpec) -> int:
    """Tokens of a picture at the encoder's own size."""
    size, _, _ = _preprocessing(clip_vision, spec, 0)
    embeddings: Any = getattr(getattr(clip_vision.model, "vision_model", None), "embeddings", None)
    positions = getattr(getattr(embeddings, "position_embedding", None), "weight", None)
    if positions is not None:
        return positions.shape[0]
    return _features(clip_vision, spec, torch.zeros(1, 3, size, size)).shape[1]


def _preprocessing(
    clip_vision: Any, spec: AdapterSpec, size: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std for this adapter; size 0 is the encoder's own."""
    own, mean, std = _constants(clip_vision)
    if spec.encoder_size not in (None, own):
        raise WrongEncoderError(
            f"this {spec.family} adapter reads {spec.encoder}, which takes pictures of {spec.encoder_size} pixels, but the "
            f"connected CLIP vision model takes {own}. Load {spec.encoder} in CLIPVisionLoader."
        )
    return size or own, mean, std


def _fit_of_training(clip_vision: Any) -> Fit:
    """As the authors' own image processor does: CLIP's crops, SigLIP's squashes."""
    embeddings: Any = getattr(getattr(clip_vision.model, "vision_model", None), "embeddings", None)
    is_siglip = getattr(embeddings, "class_embedding", embeddings) is None
    return Fit.SQUASH if is_siglip and embeddings is not None else Fit.CROP


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
    """The encoder output that the adapter reads, fp32. Raises WrongEncoderError if its width does not match."""
    out = _run(clip_vision, values)
    features = _to_host(out[_OUTPUTS[spec.feature]])
    if features.shape[-1] != spec.feature_width:
        raise WrongEncoderError(
            f"this {spec.variant.value} adapter reads {spec.feature.value} of width {spec.feature_width} ({spec.encoder}), "
            f"but the connected CLIP vision model gives width {features.shape[-1]}{_encoder_hint(spec, features)}. "
            f"Load {spec.encoder} in CLIPVisionLoader."
        )
    return pooled_by_head(clip_vision, features) if spec.feature is Feature.POOLED else features


def _to_host(features: Tensor) -> Tensor:
    """In fp32 on the device where the host keeps results. Raises MismatchError for numbers that are not finite."""
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


def _positions(clip_vision: Any, size: int) -> dict[str, Tensor]:
    """The position embedding interpolated to this size, by its name in the model; nothing at the encoder's own size."""
    own = getattr(clip_vision, "image_size", 224)
    if size == own:
        return {}
    embeddings: Any = getattr(getattr(clip_vision.model, "vision_model", None), "embeddings", None)
    if getattr(embeddings, "class_embedding", None) is None:
        raise MismatchError(
            f"encoder_size {size} needs a CLIP encoder, whose position embedding can be interpolated; the connected "
            f"vision model is another kind. Set encoder_size to 0, which is its own {own}."
        )
    patch = embeddings.patch_embedding.kernel_size[0]
    if size < patch:
        raise SettingError(
            f"encoder_size {size} is less than one patch of the connected encoder, {patch} pixels. Set {patch} or more, "
            f"or 0 for its own {own}."
        )
    return {_POSITIONS: resized_positions(embeddings.position_embedding.weight, own, size, patch)}


def _encoder_hint(spec: AdapterSpec, features: Tensor) -> str:
    name = ENCODERS.get((spec.feature, features.shape[-1]))
    return f" (it looks like {name})" if name else ""
