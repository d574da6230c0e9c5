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
from .stored import Outline, Place, StoredTensor, reading
from .unpickle import MAGIC, BadPickle, PickledCode, walk

_LARGEST_PICKLE = 16 * 2**20  # bytes, without the tensors
_LARGEST_INDEX = 16 * 2**20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WRAPPERS = ("state_dict", "module", "model")
_DEEPEST, _MOST = 6, 200_000


def pickled_outline(path: Path) -> Outline:
    """Tensors of a pickle by their own keys. Raises CheckpointError."""
    with reading(path):
        data, places = _opened(path)
        if not isinstance(data, Mapping):
            what = "Tensor" if isinstance(data, StoredTensor) else type(data).__name__
            raise CheckpointError(
                f"{shown(path.name)} holds a {what}, not a dictionary of tensors, so it is not an IP-Adapter. "
                "Pick another file."
            )
        tensors = dict(_flat(_unwrap(cast("Mapping[Any, Any]", data)), "", _DEEPEST, [_MOST]))
        _require_places(tensors, places)
    return Outline(path, tensors, {}, places)


def _opened(path: Path) -> tuple[Any, dict[str, Place]]:
    with path.open("rb") as file:
        try:
            return _zip(path, file) if file.read(4) == b"PK\3\4" else _old(path, file)
        except PickledCode as error:
            raise CheckpointError(
                f"{shown(path.name)} contains pickled code ({shown(error.name, 80)}), which could do anything to your "
                "machine, and was not opened (only tensors are allowed). Get the .safetensors version of this file."
            ) from error


def _require_places(tensors: Mapping[str, StoredTensor], places: Mapping[str, Place]) -> None:
    for tensor in tensors.values():
        if tensor.dtype is not None and tensor.start + tensor.length > places[tensor.source].length:
            raise BadPickle("a tensor beyond its place")


# --- the zip layout: <name>/data.pkl, and <name>/data/<key> for each storage ----------------------------------------


def _zip(path: Path, file: BinaryIO) -> tuple[Any, dict[str, Place]]:
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
    return data, {entry.filename.removeprefix(below): _place(file, entry, size) for entry in found}


def _require_small_index(path: Path, file: BinaryIO) -> None:
    """The list of entries is read whole; its length stands in the last bytes."""
    size = path.stat().st_size
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22 or struct.unpack_from("<I", tail, at + 12)[0] > _LARGEST_INDEX:
        raise BadPickle("no index, or one without end")


def _place(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> Place:
    """Where an entry's bytes lie, by the header in front of them."""
    file.seek(entry.header_offset)
    head = file.read(30)
    name, extra = struct.unpack("<HH", head[26:30])
    place = Place(entry.header_offset + 30 + name + extra, entry.file_size)
    if head[:4] != b"PK\3\4" or entry.compress_type not in _PACKINGS or entry.flag_bits & 1:
        raise BadPickle("an entry that is packed in another way")
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        return Place(place.start, place.length, entry.filename)
    if place.start + place.length > size or entry.compress_size != entry.file_size:
        raise BadPickle("an entry beyond the end")
    return place


# --- before it: five pickles, then for each storage its number of elements and its bytes -----------------------------


def _old(path: Path, file: BinaryIO) -> tuple[Any, dict[str, Place]]:
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
    return data, _old_places(file, head.tell(), cast("list[Any]", keys), storages)


def _old_places(file: BinaryIO, at: int, keys: list[Any], storages: Mapping[str, int]) -> dict[str, Place]:
    """at: where the first storage begins. storages: bytes of one element of each."""
    size, places = file.seek(0, io.SEEK_END), dict[str, Place]()
    for key in map(str, keys):
        file.seek(at)
        count = struct.unpack("<q", file.read(8))[0]
        places[key] = Place(at + 8, count * storages[key])
        at += 8 + places[key].length
        if count < 0 or at > size:
            raise BadPickle("a storage beyond the end")
    return places


# --- what was found, by name ----------------------------------------------------------------------------------------


def _unwrap(data: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Trainers save {"state_dict": {...}} and the like around the tensors."""
    inner = (data[name] for name in _WRAPPERS if isinstance(data.get(name), Mapping))
    return next(inner, data)


def _flat(
    data: Mapping[Any, Any], prefix: str, depth: int, left: list[int]
) -> Iterable[tuple[str, StoredTensor]]:
    """Names joined by dots. depth, left: of dictionaries in each other and of items, since one may hold itself."""
    for key, value in data.items():
        left[0] -= 1
        if left[0] < 0:
            raise BadPickle("dictionaries without end")
        if isinstance(value, StoredTensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth:
            yield from _flat(cast("Mapping[Any, Any]", value), f"{prefix}{key}.", depth - 1, left)
