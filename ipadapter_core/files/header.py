"""The header of a safetensors file: eight bytes of length, then JSON (https://github.com/huggingface/safetensors)."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import CheckpointError, shown
from .stored import ByteRange, Outline, StoredTensor, dims, reading

# Bytes; a checkpoint of 20,000 tensors has 2 MB.
_LARGEST = 16 * 2**20
_MOST_TENSORS = 50_000
_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
# Name, torch's dtype if it has one, bytes of an element.
_DTYPES: dict[str, tuple[str, torch.dtype | None, int]] = {
    kind: (name, dtype, dtype.itemsize if dtype else 0)
    for kind, name in _NAMES.items()
    for dtype in (cast("torch.dtype | None", getattr(torch, name, None)),)
}


def is_safetensors(path: Path) -> bool:
    """By content, whatever the file's name: the header is JSON after its length."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**32


def safetensors_outline(path: Path) -> Outline:
    """What the file holds, from its header alone; the file must be as long as it says. Raises CheckpointError."""
    with reading(path), path.open("rb") as file:
        size = path.stat().st_size
        length = struct.unpack("<Q", file.read(8))[0]
        _require_size(path, size, 8 + length)
        if length > _LARGEST:
            raise CheckpointError(
                f"{shown(path.name)} has a safetensors header of {length:,} bytes, more than a model's. Download it again."
            )
        raw = file.read(length)
    try:
        tensors, metadata = _parsed(raw)
        end = _end(tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{shown(path.name)} has a damaged safetensors header ({type(error).__name__}: {shown(error, 80)}). "
            "Download it again."
        ) from error
    _require_size(path, size, 8 + length + end)
    return Outline(path, tensors, metadata, {"": ByteRange(8 + length, end)})


def _parsed(raw: bytes) -> tuple[dict[str, StoredTensor], Mapping[str, str]]:
    entries: Any = json.loads(raw.decode(), parse_constant=_no_number)
    metadata = cast("dict[str, Any]", entries).pop("__metadata__", None) or {}
    if not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("metadata that is no text")
    if len(entries) > _MOST_TENSORS:
        raise ValueError(f"{len(entries):,} tensors")
    return {key: _tensor(entry) for key, entry in entries.items()}, metadata


def _no_number(name: str) -> None:
    raise ValueError(f"{name} for a number")


def _tensor(entry: Mapping[str, Any]) -> StoredTensor:
    start, end = dims(entry["data_offsets"])
    shape, kind = dims(entry["shape"]), str(entry["dtype"])
    name, dtype, size = _DTYPES.get(kind) or (shown(kind, 20), None, 0)
    if end < start or (dtype is not None and end - start != math.prod(shape) * size):
        raise ValueError("offsets that do not fit the shape")
    return StoredTensor(shape, dtype, name, start=start)


def _end(tensors: Mapping[str, StoredTensor]) -> int:
    """Where the last tensor ends. Raises ValueError where two overlap, which could unfold to far more than the file."""
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.length)):
        if tensor.start < end:
            raise ValueError("tensors that overlap")
        end = tensor.start + tensor.length
    return end


def _require_size(path: Path, size: int, expected: int) -> None:
    if size < expected:
        raise CheckpointError(
            f"{shown(path.name)} is truncated: {size:,} bytes of {expected:,}. "
            "The download stopped early; download it again."
        )
