"""The header of a safetensors file: eight bytes of length, then JSON (https://github.com/huggingface/safetensors)."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import CheckpointError, shown
from .stored import ByteRange, Outline, Shape, StoredTensor, dims, reading

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


def header_digest(path: Path) -> bytes | None:
    """Of the header's bytes, which are not parsed; None where this is no safetensors file. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(9)
        if len(head) < 9 or head[8:] != b"{" or (length := struct.unpack("<Q", head[:8])[0]) > _LARGEST:
            return None
        raw = file.read(length - 1)
    return hashlib.blake2b(raw, digest_size=16).digest() if len(raw) == length - 1 else None


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
        tensors, metadata, end = _parsed(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{shown(path.name)} has a damaged safetensors header ({type(error).__name__}: {shown(error, 80)}). "
            "Download it again."
        ) from error
    _require_size(path, size, 8 + length + end)
    return Outline(path, tensors, metadata, {"": ByteRange(8 + length, end)})


def _parsed(raw: bytes) -> tuple[dict[str, StoredTensor], Mapping[str, str], int]:
    """Tensors, metadata, and where the last tensor ends."""
    entries: Any = json.loads(raw.decode(), parse_constant=_no_number)
    metadata = cast("dict[str, Any]", entries).pop("__metadata__", None) or {}
    if not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("metadata that is no text")
    if len(entries) > _MOST_TENSORS:
        raise ValueError(f"{len(entries):,} tensors")
    tensors, end = _tensors(entries)
    return tensors, metadata, end


def _no_number(name: str) -> None:
    raise ValueError(f"{name} for a number")


def _tensors(entries: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, StoredTensor], int]:
    """And where the last one ends. Raises ValueError where offsets do not fit a shape, or two overlap, which could unfold
    to far more than the file.

    A file has few shapes, so that each is checked once.
    """
    known: dict[tuple[Any, ...], tuple[Shape, torch.dtype | None, str, int | None]] = {}
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int]] = []
    for key, entry in entries.items():
        layout = entry["dtype"], *entry["shape"]
        if layout not in known:
            known[layout] = _layout(entry)
        shape, dtype, name, size = known[layout]
        start, end = entry["data_offsets"]
        if type(start) is not int or type(end) is not int or not 0 <= start <= end < 2**62:
            raise ValueError("offsets that are none")
        if size is not None and end - start != size:
            raise ValueError("offsets that do not fit the shape")
        tensors[key] = StoredTensor(shape, dtype, name, "", start)
        spans.append((start, size or 0))
    return tensors, _end(spans)


def _layout(entry: Mapping[str, Any]) -> tuple[Shape, torch.dtype | None, str, int | None]:
    """Shape, dtype, its name and the bytes of all elements, None of what cannot be read as plain numbers."""
    shape, kind = dims(entry["shape"]), str(entry["dtype"])
    name, dtype, size = _DTYPES.get(kind) or (shown(kind, 20), None, 0)
    return shape, dtype, name, math.prod(shape) * size if dtype is not None else None


def _end(spans: list[tuple[int, int]]) -> int:
    end = 0
    for start, length in sorted(spans):
        if start < end:
            raise ValueError("tensors that overlap")
        end = start + length
    return end


def _require_size(path: Path, size: int, expected: int) -> None:
    if size < expected:
        raise CheckpointError(
            f"{shown(path.name)} is truncated: {size:,} bytes of {expected:,}. "
            "The download stopped early; download it again."
        )
