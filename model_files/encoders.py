"""CLIP vision encoders recognised by key names and shapes, in the layouts that ComfyUI's loader takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..ipadapter_core.errors import CheckpointError, shown
from ..ipadapter_core.siglip import head_keys

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EncoderFacts:
    """width: of the hidden states. projection: of image_embeds, 0 if there is none. image_size, patch: in pixels.

    text_model: whether the file is a whole CLIP, with the encoder of text beside it. pooling: whether it holds SigLIP's
    pooling head.
    """

    name: str
    layers: int
    width: int
    projection: int
    patch: int
    image_size: int
    text_model: bool = False
    pooling: bool = False


@dataclass(frozen=True)
class _Layout:
    """The keys of one layout that identify the encoder. layer: finds the number of a transformer block."""

    mark: str
    layer: re.Pattern[str]
    positions: str
    patches: str
    projection: str
    projection_side: int
    text: str


_LAYOUTS = (
    _Layout(
        "vision_model.",
        re.compile(r"vision_model\.encoder\.layers\.([0-9]{1,3})\.layer_norm1\.weight$"),
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "visual_projection.weight",
        0,
        "text_model.",
    ),
    _Layout(
        "visual.",
        re.compile(r"visual\.transformer\.resblocks\.([0-9]{1,3})\.ln_1\.weight$"),
        "visual.positional_embedding",
        "visual.conv1.weight",
        "visual.proj",
        1,
        "transformer.",
    ),
)
# By number of blocks and width.
_NAMES: dict[tuple[int, int], str] = {
    (12, 768): "CLIP ViT-B",
    (24, 1024): "CLIP ViT-L",
    (32, 1280): "CLIP ViT-H",
    (48, 1664): "CLIP ViT-bigG",
    (27, 1152): "SigLIP so400m",
}
_USUAL_SIZE = 224
# SigLIP: patches of 14 do not fill its 384 pixels.
_CUT = {378: 384}


def pooling_note(facts: EncoderFacts) -> str:
    """', with its pooling head' or ', without its pooling head' of a SigLIP, '' of a CLIP, which has none."""
    if not facts.name.startswith("SigLIP"):
        return ""
    return f", {'with' if facts.pooling else 'without'} its pooling head"


def encoder_facts(shapes: Mapping[str, Shape], file: str) -> EncoderFacts | None:
    """The encoder of these keys, None if they are of none. file: for messages. Raises CheckpointError for a part of one."""
    for layout in _LAYOUTS:
        if any(key.startswith(layout.mark) for key in shapes):
            return _facts(layout, shapes, file)
    return None


def _facts(layout: _Layout, shapes: Mapping[str, Shape], file: str) -> EncoderFacts:
    numbers = {int(match[1]) for key in shapes if (match := layout.layer.match(key))}
    absent = [key for key in (layout.positions, layout.patches) if key not in shapes]
    gaps = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if absent or gaps:
        lack = ", ".join(absent + [f"transformer block {n}" for n in gaps[:3]])
        raise CheckpointError(
            f"{shown(file)} is a part of a CLIP vision encoder only: it lacks {lack}. Download the whole file."
        )
    positions, width = _matrix(shapes[layout.positions], 2, layout.positions, file)
    patch = _matrix(shapes[layout.patches], 4, layout.patches, file)[-1]
    # without a class token the positions are a square
    side = math.isqrt(positions)
    image_size = patch * (side if side * side == positions else math.isqrt(positions - 1))
    image_size = _CUT.get(image_size, image_size)
    projection = shapes.get(layout.projection, ())
    return EncoderFacts(
        _name(len(numbers), width, patch, image_size),
        len(numbers),
        width,
        projection[layout.projection_side] if len(projection) == 2 else 0,
        patch,
        image_size,
        any(key.startswith(layout.text) for key in shapes),
        head_keys(shapes) is not None,
    )


def _matrix(shape: Shape, sides: int, key: str, file: str) -> Shape:
    if len(shape) != sides or 0 in shape:
        raise CheckpointError(
            f"{shown(file)}: {key} is of shape {shape}, expected {sides} sides. The file is damaged; download it again."
        )
    return shape


def _name(layers: int, width: int, patch: int, image_size: int) -> str:
    known = _NAMES.get((layers, width))
    size = f"-{image_size}" if image_size != _USUAL_SIZE else ""
    return f"{known}/{patch}{size}" if known else f"a vision encoder of {layers} blocks and width {width}"
