"""IPADAPTER values as other packs give them: an adapter's tensors in a dict, or a pipeline of models in a dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.variants import ambiguous_variants
from .adapters import FLAGS, HostAdapter

# The parts of a pipeline.
ADAPTER, ENCODER, FACES = "ipadapter", "clipvision", "insightface"
_UNNAMED = "the connected adapter"


def adapter_of(value: Any, name: str = _UNNAMED) -> HostAdapter:
    """The adapter in an IPADAPTER value: ours as it is, of a pipeline its adapter, of a raw dict its tensors, shared.

    name: of a raw dict, for error messages. Raises MismatchError for anything else.
    """
    if isinstance(value, HostAdapter):
        return value
    if isinstance(value, Mapping) and {"image_proj", "ip_adapter"} <= value.keys():
        _require_tensors(value)
        checkpoint = Checkpoint(str(value.get("name", name)), value["image_proj"], value["ip_adapter"])
        return HostAdapter(checkpoint, _variant(checkpoint, value))
    if isinstance(value, Mapping) and isinstance(value.get(ADAPTER), Mapping):
        part = value[ADAPTER]
        return adapter_of(part.get("model"), _file_name(part.get("file")))
    raise MismatchError(
        f"the ipadapter input holds no adapter, but {_what(value)}. Connect Image Prompt: Load Adapter, or a loader of "
        "another pack that gives its tensors ('image_proj', 'ip_adapter') or a pipeline ('ipadapter')."
    )


def _require_tensors(value: Mapping[str, Any]) -> None:
    for role in ("image_proj", "ip_adapter"):
        tensors = value[role]
        named = isinstance(tensors, Mapping) and all(
            isinstance(key, str) and isinstance(each, Tensor) for key, each in tensors.items()
        )
        if not (named and tensors):
            raise MismatchError(
                f"the ipadapter input holds no tensors under '{role}', but {_what(tensors)}. Connect Image Prompt: Load "
                "Adapter, or a loader of another pack."
            )


def clip_vision_of(value: Any, given: Any = None) -> Any:
    """The encoder that is connected, else that of a pipeline, else None."""
    return _part(value, ENCODER) if given is None else given


def face_analysis_of(value: Any, given: Any = None) -> Any:
    """The face model (INSIGHTFACE) that is connected, else that of a pipeline, else None."""
    return _part(value, FACES) if given is None else given


def _part(value: Any, part: str) -> Any:
    held = value.get(part) if isinstance(value, Mapping) else None
    return held.get("model") if isinstance(held, Mapping) else None


def _variant(checkpoint: Checkpoint, value: Mapping[str, Any]) -> Variant | None:
    """By the flags of other packs' loaders, where the keys allow it. FaceID Plus has none, its v2 has."""
    allowed = ambiguous_variants(checkpoint.shapes, checkpoint.name)
    flagged = [variant for variant, flag in FLAGS.items() if value.get(flag)]
    return next((variant for variant in [*flagged, Variant.FACEID_PLUS] if variant in allowed), None)


def _file_name(path: Any) -> str:
    return PurePosixPath(PureWindowsPath(path).as_posix()).name if isinstance(path, str) else _UNNAMED


def _what(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(sorted(map(str, value))[:6]) or 'nothing'}"
    return "nothing" if value is None else f"a {type(value).__name__}"
