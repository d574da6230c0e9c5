"""IPADAPTER values of all shapes, and the pipeline that the unified loaders give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...host.values import ADAPTER, ENCODER, FACES, adapter_of, clip_vision_of, face_analysis_of

__all__ = ["adapter_of", "clip_vision_of", "face_analysis_of", "held", "is_pipeline", "pipeline"]
# file (of faces: provider) and model
Part = dict[str, Any]


def is_pipeline(value: Any) -> bool:
    """Whether this is the output of a unified loader; that of a model loader holds tensors, ours too."""
    return isinstance(value, Mapping) and "image_proj" not in value and ADAPTER in value


def pipeline(adapter: Part, clip_vision: Part | None = None, faces: Part | None = None) -> dict[str, Part]:
    """A new pipeline of its parts; a part that is left out is there and empty, as other packs expect."""
    return {
        ENCODER: clip_vision or {"file": None, "model": None},
        ADAPTER: adapter,
        FACES: faces or {"provider": None, "model": None},
    }


def held(value: Any, part: str, key: str, wanted: Any) -> Any:
    """The model of a part of a connected pipeline if its file, or provider, is the wanted one; else None."""
    found = value.get(part) if is_pipeline(value) else None
    return found.get("model") if isinstance(found, Mapping) and found.get(key) == wanted else None
