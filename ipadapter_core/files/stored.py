"""Tensors as they lie in a file: dtype, shape and byte range of each, and reading them into memory of their own.

Files are not memory-mapped: one that is overwritten or cut while its adapter is in use must change nothing, and reading
a map beyond the end of its file would end the process.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from ..errors import CheckpointError, shown

Shape = tuple[int, ...]
_MOST_DIMS = 8
# Bytes that a file's tensors may always take, and else how many times its size: compressed weights shrink by half, and
# views may overlap.
_ALLOWED, _MOST_RATIO = 256 * 2**20, 4


@dataclass(frozen=True)
class ByteRange:
    """Consecutive bytes of a file. compressed: the name of their zip entry, if that is compressed."""

    start: int
    length: int
    compressed: str = ""


class StoredTensor(NamedTuple):
    """dtype: None of what cannot be read as plain numbers; kind says what it is ('sparse', 'F4').

    source: name of its byte range in the Outline. start: its first byte there. stride: in elements, None if contiguous.
    """

    shape: Shape
    dtype: torch.dtype | None
    kind: str
    source: str = ""
    start: int = 0
    stride: Shape | None = None

    @property
    def length(self) -> int:
        """Bytes from the first element to the end of the last."""
        if self.dtype is None:
            return 0
        return extent(self.shape, self.stride) * self.dtype.itemsize


@dataclass(frozen=True)
class Outline:
    """What a file holds, without its data. metadata: of a safetensors header. ranges: its byte ranges by name."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    ranges: Mapping[str, ByteRange] = field(default_factory=dict[str, ByteRange])

    @property
    def shapes(self) -> dict[str, Shape]:
        return {key: tensor.shape for key, tensor in self.tensors.items()}

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """These tensors, each in memory of its own; nothing else of the file is read. Raises CheckpointError."""
        wanted = {key: self.tensors[key] for key in keys}
        self._require_readable(wanted)
        with reading(self.path), self.path.open("rb", buffering=0) as file:
            return {key: self._read(file, tensor) for key, tensor in wanted.items()}

    def _require_readable(self, wanted: Mapping[str, StoredTensor]) -> None:
        odd = next(
            (f"{shown(key, 80)} is {tensor.kind}" for key, tensor in wanted.items() if tensor.dtype is None),
            "",
        )
        if odd:
            raise CheckpointError(
                f"{shown(self.path.name)} holds tensors that are no plain numbers: {odd}. "
                "Save it with float16, bfloat16 or float32 tensors."
            )
        size = self.path.stat().st_size
        if sum(tensor.length for tensor in wanted.values()) > max(_ALLOWED, _MOST_RATIO * size):
            raise CheckpointError(
                f"{shown(self.path.name)} ({size:,} bytes) says that it holds far more than it can. Download it again."
            )

    def _read(self, file: BinaryIO, tensor: StoredTensor) -> Tensor:
        source = self.ranges[tensor.source]
        data = torch.empty(tensor.length, dtype=torch.uint8)
        if source.compressed:
            with zipfile.ZipFile(self.path) as archive, archive.open(source.compressed) as entry:
                entry.seek(tensor.start)
                _fill(data, entry, self.path)
        else:
            file.seek(source.start + tensor.start)
            _fill(data, file, self.path)
        values = data.view(tensor.dtype or torch.uint8)
        if tensor.stride is None:
            return values.reshape(tensor.shape)
        return values.as_strided(tensor.shape, tensor.stride).contiguous()


def _fill(data: Tensor, file: Any, path: Path) -> None:
    view = memoryview(cast(Any, data.numpy()))
    while view:
        count = file.readinto(view)
        if not count:
            raise CheckpointError(
                f"{shown(path.name)} was cut while it was read. Load it again when it is whole."
            )
        view = view[count:]


def extent(shape: Shape, stride: Shape | None) -> int:
    """How many elements lie from the first to the last."""
    if stride is None or 0 in shape:
        return math.prod(shape)
    return 1 + sum((dim - 1) * step for dim, step in zip(shape, stride, strict=True))


def dims(value: Any) -> Shape:
    """A shape, stride or pair of offsets as it came from a file. Raises ValueError where it cannot be one."""
    if not isinstance(value, list | tuple) or len(value) > _MOST_DIMS:
        raise ValueError("a shape that is none")
    for dim in value:
        if type(dim) is not int or not 0 <= dim < 2**62:
            raise ValueError("a dimension that is no count")
    return tuple(value)


class reading:
    """Whatever fails in the block while `path` is read becomes a CheckpointError of one sentence.

    What readers raise of damaged files is not limited (zlib.error, BadZipFile, NotImplementedError, ...), so that every
    exception but a CheckpointError is replaced.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, CheckpointError) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and error.errno:
            raise CheckpointError(
                f"{shown(self.path.name)} cannot be read ({error.strerror}). Check its rights and its drive."
            ) from error
        raise CheckpointError(damaged(self.path)) from error


def damaged(path: Path) -> str:
    """The sentence for a file that is no whole model file."""
    try:
        size = f" ({path.stat().st_size:,} bytes)"
    except OSError:
        size = ""
    return (
        f"{shown(path.name)}{size} is neither a safetensors nor a whole PyTorch file: "
        "it is truncated, or something else renamed. Compare its size with the download page and download it again."
    )
