"""PyTorch files: the zip of torch.save, and the layout before it, without reading a tensor."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import CheckpointError, shown
from .rebuilt import BadPickle, PickledCode
from .stored import ByteRange, Outline, StoredTensor, reading
from .unpickle import MAGIC, walk

# Bytes, without the tensors.
_LARGEST_PICKLE = _LARGEST_INDEX = 16 * 2**20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WRAPPERS = ("state_dict", "module", "model")
_DEEPEST, _MOST_ITEMS = 6, 200_000


def pickled_outline(path: Path) -> Outline:
    """What the file holds, tensors by their own keys. Raises CheckpointError."""
    with reading(path):
        data, ranges = _opened(path)
        if not isinstance(data, Mapping):
            what = "Tensor" if isinstance(data, StoredTensor) else type(data).__name__
            raise CheckpointError(
                f"{shown(path.name)} holds a {what}, not a dictionary of tensors, so it is not an IP-Adapter. "
                "Pick another file."
            )
        tensors = dict(_flat(_unwrap(cast("Mapping[Any, Any]", data)), "", _DEEPEST, [_MOST_ITEMS]))
        _require_inside(tensors, ranges)
    return Outline(path, tensors, {}, ranges)


def _opened(path: Path) -> tuple[Any, dict[str, ByteRange]]:
    with path.open("rb") as file:
        try:
            return _zip_layout(path, file) if file.read(4) == b"PK\3\4" else _old_layout(path, file)
        except PickledCode as error:
            raise CheckpointError(
                f"{shown(path.name)} contains pickled code ({shown(error.name, 80)}), which could do anything to your "
                "machine, and was not opened (only tensors are allowed). Get the .safetensors version of this file."
            ) from error


def _require_inside(tensors: Mapping[str, StoredTensor], ranges: Mapping[str, ByteRange]) -> None:
    for tensor in tensors.values():
        if tensor.dtype is not None and tensor.start + tensor.length > ranges[tensor.source].length:
            raise BadPickle("a tensor beyond its storage")


# --- the zip layout: <name>/data.pkl, and <name>/data/<key> for each storage ----------------------------------------


def _zip_layout(path: Path, file: BinaryIO) -> tuple[Any, dict[str, ByteRange]]:
    _require_small_index(path, file)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (name,) = (name for name in entries if name.rpartition("/")[2] == "data.pkl")
        root = name.removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        if entries[name].file_size > _LARGEST_PICKLE or (order and archive.read(order) != b"little"):
            raise BadPickle("too large, or of a machine with another order of bytes")
        data = walk(io.BytesIO(archive.read(name)))
    size, below = path.stat().st_size, f"{root}data/"
    found = (entry for key, entry in entries.items() if key.startswith(below))
    return data, {entry.filename.removeprefix(below): _entry_range(file, entry, size) for entry in found}


def _require_small_index(path: Path, file: BinaryIO) -> None:
    """zipfile reads the list of entries whole; its length stands in the last bytes of the file."""
    size = path.stat().st_size
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22 or struct.unpack_from("<I", tail, at + 12)[0] > _LARGEST_INDEX:
        raise BadPickle("no index, or too large a one")


def _entry_range(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> ByteRange:
    """Where an entry's bytes lie, by the header in front of them."""
    file.seek(entry.header_offset)
    head = file.read(30)
    name, extra = struct.unpack("<HH", head[26:30])
    start, length = entry.header_offset + 30 + name + extra, entry.file_size
    if head[:4] != b"PK\3\4" or entry.compress_type not in _COMPRESSIONS or entry.flag_bits & 1:
        raise BadPickle("an entry of another compression, or encrypted")
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        return ByteRange(start, length, entry.filename)
    if start + length > size or entry.compress_size != entry.file_size:
        raise BadPickle("an entry beyond the end")
    return ByteRange(start, length)


# --- before it: five pickles, then for each storage its number of elements and its bytes -----------------------------


def _old_layout(path: Path, file: BinaryIO) -> tuple[Any, dict[str, ByteRange]]:
    file.seek(0)
    head = io.BytesIO(file.read(_LARGEST_PICKLE))
    storages: dict[str, int] = {}
    if walk(head) != MAGIC or tarfile.is_tarfile(path):
        raise BadPickle("no file of torch.save")
    _, system, data, keys = (walk(head, storages) for _ in range(4))
    if not (
        isinstance(system, dict)
        and cast("dict[str, Any]", system).get("little_endian")
        and isinstance(keys, list)
    ):
        raise BadPickle("of a machine with another order of bytes")
    return data, _old_ranges(file, head.tell(), cast("list[Any]", keys), storages)


def _old_ranges(
    file: BinaryIO, at: int, keys: list[Any], storages: Mapping[str, int]
) -> dict[str, ByteRange]:
    """at: where the first storage begins. storages: bytes of one element of each."""
    size, ranges = file.seek(0, io.SEEK_END), dict[str, ByteRange]()
    for key in map(str, keys):
        file.seek(at)
        count = struct.unpack("<q", file.read(8))[0]
        ranges[key] = ByteRange(at + 8, count * storages[key])
        at += 8 + ranges[key].length
        if count < 0 or at > size:
            raise BadPickle("a storage beyond the end")
    return ranges


# --- tensors by name ------------------------------------------------------------------------------------------------


def _unwrap(data: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Trainers save {"state_dict": {...}} and the like around the tensors."""
    inner = (data[name] for name in _WRAPPERS if isinstance(data.get(name), Mapping))
    return next(inner, data)


def _flat(
    data: Mapping[Any, Any], prefix: str, depth: int, left: list[int]
) -> Iterable[tuple[str, StoredTensor]]:
    """Names joined by dots. depth, left: how deep dictionaries and how many items may come, since one may hold itself."""
    for key, value in data.items():
        left[0] -= 1
        if left[0] < 0:
            raise BadPickle("dictionaries without end")
        if isinstance(value, StoredTensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth:
            yield from _flat(cast("Mapping[Any, Any]", value), f"{prefix}{key}.", depth - 1, left)
