"""SigLIP's pooled vector. ComfyUI leaves out the encoder's pooling head when it loads one: it is read from the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.checkpoint import read_outline
from ..ipadapter_core.errors import CheckpointError, MissingFileError, WrongEncoderError
from ..ipadapter_core.siglip import NORM, head_keys, pooled
from .folders import menu_of, model_path


def pooled_by_head(clip_vision: Any, tokens: Tensor) -> Tensor:
    """(n, T, width) of the encoder after its last norm -> (n, width). Raises WrongEncoderError where no head is found."""
    vision: Any = getattr(clip_vision.model, "vision_model", None)
    norm: Tensor | None = getattr(getattr(vision, "post_layernorm", None), "weight", None)
    if norm is None or not getattr(vision, "output_layernorm", False):
        raise WrongEncoderError(
            "the connected CLIP vision model is no SigLIP, whose pooled vector this adapter reads. Load SigLIP so400m/14 in "
            "CLIPVisionLoader."
        )
    head = next(_heads(norm.detach().cpu().float()), None)
    if head is None:
        raise WrongEncoderError(
            "this adapter reads SigLIP's pooled vector, ComfyUI drops the part of the encoder that makes it, and no file in "
            "models/clip_vision holds that part of the connected encoder (vision_model.head). Put the encoder's own file "
            "there, such as model.safetensors of google/siglip-so400m-patch14-384."
        )
    return pooled(tokens, head, vision.encoder.layers[0].self_attn.heads)


def _heads(norm: Tensor) -> Iterator[Mapping[str, Tensor]]:
    """Of the installed files whose encoder has this last norm."""
    for name in menu_of("clip_vision"):
        try:
            outline = read_outline(Path(model_path("clip_vision", name)))
            keys = head_keys(outline.shapes)
            if keys is None or outline.shapes[keys[NORM]] != tuple(norm.shape):
                continue
            read = outline.read(keys.values())
        except (CheckpointError, MissingFileError):  # a file that is no encoder, broken, or gone by now
            continue
        if torch.allclose(read[keys[NORM]].float(), norm, rtol=1e-2, atol=1e-3):  # the host may round it
            yield {wanted: read[key] for wanted, key in keys.items()}
