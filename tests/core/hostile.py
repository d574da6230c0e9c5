"""Files made to harm: mutations of whole ones by a seed, and single ones that once did harm."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from core.small import flat, nested
from safetensors.torch import save

_ODD: tuple[str, ...] = (
    "Infinity", "-Infinity", "NaN", "1e400", "-1", "0", "1.5", "9" * 30, "9" * 5000, "18446744073709551616", "true",
    "null", '""', '"F32"', "[]", "{}", "[[1]]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", '"\\ud800"', "[" * 5000,
    "4611686018427387904",
)  # fmt: skip


def mutated(seed: int) -> tuple[str, bytes]:
    """(suffix, content): a header, a zip or a pickle of either layout with a few mutations."""
    rng = random.Random(seed)
    kind = rng.choice([header, bytes_of_a_zip, pickle_in_a_zip, packed_zip, old_pickle])
    return kind(rng)


def _safetensors(rng: random.Random) -> bytes:
    return save(flat(rng.choice(["base", "plus", "full"])), {"format": "pt"})


def header(rng: random.Random) -> tuple[str, bytes]:
    whole = _safetensors(rng)
    length = struct.unpack("<Q", whole[:8])[0]
    text, data = whole[8 : 8 + length].decode(), whole[8 + length :]
    for _ in range(rng.randint(1, 3)):
        text = rng.choice([_value, _key, _flip_text, _cut])(text, rng)
    raw = text.encode("utf-8", "surrogatepass")
    length = (
        len(raw) if rng.random() < 0.9 else rng.choice([0, 1, len(raw) - 1, 2**31, 2**32 - 1, 2**63, 10**9])
    )
    return rng.choice([".safetensors", ".bin"]), struct.pack("<Q", length) + raw + data


def _value(text: str, rng: random.Random) -> str:
    """One number, list or word of the JSON becomes something else."""
    places = [n for n, char in enumerate(text) if char in "0123456789[" and text[n - 1] in ":[,"]
    at = rng.choice(places)
    end = at + 1
    while end < len(text) and text[end] not in ",]}":
        end += 1
    return text[:at] + rng.choice(_ODD) + text[end:]


def _key(text: str, rng: random.Random) -> str:
    old = rng.choice(
        ["dtype", "shape", "data_offsets", "F32", "image_proj", "ip_adapter", "to_k_ip", "weight", "format"]
    )
    new = rng.choice(
        ["", "x", "\u00b2", "\u0663", "\\n", "\\u0000", "9" * 40, "__metadata__", "F16", "F8_E4M3", "I64"]
    )
    return text.replace(old, new, rng.choice([1, 1, 99]))


def _flip_text(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + chr(rng.randrange(1, 0x300)) + text[at + 1 :]


def _cut(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at + rng.randint(1, 60) :]


def _flipped(content: bytes, rng: random.Random, most: int = 6) -> bytes:
    raw = bytearray(content)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(raw))
        choice = rng.randrange(4)
        if choice == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            raw[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
        elif choice == 2:
            del raw[at : at + rng.randint(1, 40)]
        else:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    return bytes(raw)


def _saved(rng: random.Random, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    tensors: Any = flat(rng.choice(["base", "plus"]))
    torch.save(rng.choice([tensors, nested(tensors)]), stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def bytes_of_a_zip(rng: random.Random) -> tuple[str, bytes]:
    """Mostly in the index at its end, where sizes and places stand."""
    whole = _saved(rng)
    if rng.random() < 0.7:
        index = whole.index(b"PK\1\2")
        return ".bin", whole[:index] + _flipped(whole[index:], rng)
    return ".bin", _flipped(whole, rng)


def _repacked(
    whole: bytes, change: Callable[[str, bytes], bytes], packing: int = zipfile.ZIP_STORED
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(stream, "w", packing) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return stream.getvalue()


def pickle_in_a_zip(rng: random.Random) -> tuple[str, bytes]:
    def change(name: str, content: bytes) -> bytes:
        return _flipped(content, rng, 4) if name.endswith("data.pkl") else content

    return ".pt", _repacked(_saved(rng), change)


def packed_zip(rng: random.Random) -> tuple[str, bytes]:
    packing = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    odd = rng.random() < 0.5
    whole = _repacked(_saved(rng), lambda _, content: content + bytes(odd * 10**5), packing)
    return ".bin", whole if rng.random() < 0.3 else _flipped(whole, rng, 3)


def old_pickle(rng: random.Random) -> tuple[str, bytes]:
    whole = _saved(rng, legacy=True)
    front = whole.index(b"image_proj") + rng.choice([200, 3000])
    return ".ckpt", _flipped(whole[:front], rng) + whole[front:]


# --- single ones ----------------------------------------------------------------------------------------------------


def _header(header: bytes, data: int = 64) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(data)


def _without_sites() -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in flat().items() if key.startswith("image_proj.")}


def _entry(**changes: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes
    return _header(json.dumps({"image_proj.proj.weight": entry}).encode())


def _in_a_zip(raw: bytes, packing: int = zipfile.ZIP_STORED, **others: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as target:
        target.writestr("archive/data.pkl", raw)
        for name, content in others.items():
            target.writestr(f"archive/data/{name}", content)
    return stream.getvalue()


def _itself() -> bytes:
    data: dict[str, Any] = {}
    data["image_proj"] = data["ip_adapter"] = data
    return pickle.dumps(data, protocol=2)


def _laughs() -> bytes:
    """Thirty dictionaries, each twice in the next: a billion when they are counted out."""
    data: dict[str, Any] = {}
    for _ in range(30):
        data = {"a": data, "b": data, "c": data}
    return pickle.dumps(data, protocol=2)


def _deep_key() -> bytes:
    """A tuple in a tuple in a tuple as a key: to hash it overflows the stack of the process."""
    return b"\x80\x02})" + b"\x85" * 400_000 + b"K\x01s."


_STORAGE = b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"


def _tensor(count: bytes, shape: bytes, stride: bytes) -> bytes:
    """One tensor under 'image_proj.a', of a storage that says to have `count` elements."""
    made = b"ctorch._utils\n_rebuild_tensor_v2\n((" + _STORAGE + count + b"tQK\0" + shape + stride
    return b"\x80\x02}X\x0c\0\0\0image_proj.a" + made + b"\x89ccollections\nOrderedDict\n)RtRs."


def _count(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little")


def _one_tensor(
    count: int, shape: int, stride: int, stored: bytes | None = bytes(16), packing: int = zipfile.ZIP_STORED
):
    raw = _tensor(_count(count), _count(shape) + b"\x85", _count(stride) + b"\x85")
    return _in_a_zip(raw, packing, **({} if stored is None else {"0": stored}))


def _floats(keys: Sequence[str], overlap: bool = False) -> bytes:
    """A tensor of one number for each key."""
    places = [(0, 4) if overlap else (4 * n, 4 * n + 4) for n in range(len(keys))]
    entries = {
        key: {"dtype": "F32", "shape": [1], "data_offsets": place}
        for key, place in zip(keys, places, strict=True)
    }
    return _header(json.dumps(entries).encode())


_FAR = ("encoder.layers.999999999.layer_norm1.weight", "embeddings.position_embedding.weight")
_SAFE: dict[str, bytes] = {
    "Infinity in a shape": _entry(shape=[float("inf"), 1]),
    "NaN in a shape": _entry(shape=[float("nan"), 1]),
    "1e400 in the offsets": _header(b'{"image_proj.a":{"dtype":"F32","shape":[4],"data_offsets":[0,1e400]}}'),
    "a negative side": _entry(shape=[-2, -2]),
    "true for a side": _entry(shape=[True, 4]),
    "a side of 2**70": _entry(shape=[2**70, 0]),
    "no list for a shape": _entry(shape=4),
    "metadata of numbers": _header(b'{"__metadata__":{"format":1}}'),
    "metadata that is a list": _header(b'{"__metadata__":[1]}'),
    "an entry that is a list": _header(b'{"image_proj.a":[]}'),
    "lists without end": _header(b'{"a":' + b"[" * 10**6),
    "a header of 20 MB": _header(b'{"a":"' + b"x" * 20 * 2**20 + b'"}'),
    "a number of a million digits": _header(b'{"a":' + b"9" * 10**6 + b"}"),
    "a half character in a name": _header(b'{"\\ud800":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "a line end in a name": _floats(["image_proj.a\nb\0c"]),
    "a name of a megabyte": _floats(["image_proj." + "x" * 10**6, "ip_adapter.1"]),
    "a thousand tensors of one place": _floats([f"image_proj.{n}" for n in range(999)], overlap=True),
    "a block of number 999999999": _floats([f"vision_model.{key}" for key in _FAR]),
    "a site of number ²": save({"ip_adapter.\u00b2.to_k_ip.weight": torch.zeros(2, 2), **_without_sites()}),
    "a hundred thousand layers": _floats([f"image_proj.layers.{n}.0.to_q.weight" for n in range(10**5)]),
}
_PICKLES: dict[str, bytes] = {
    "a dictionary that holds itself": _in_a_zip(_itself()),
    "a bare pickle that holds itself": _itself(),
    "a billion dictionaries": _in_a_zip(_laughs()),
    "a key that is a deep tuple": _in_a_zip(_deep_key()),
    "a memo of number 2**31": _in_a_zip(b"\x80\x02}r\xff\xff\xff\x7f."),
    "text of 2 GB that is not there": _in_a_zip(b"\x80\x02X\xff\xff\xff\x7fabc."),
    "a pickle that does nothing, for long": _in_a_zip(b"K\x01\x85" * 10**6 + b"}.", zipfile.ZIP_DEFLATED),
    "a storage of 2**50 numbers": _one_tensor(2**50, 4, 1),
    "a number that stands for 2**50": _one_tensor(4, 2**50, 0),
    "a tensor beyond its storage": _one_tensor(4, 5, 1),
    "a storage that is not there": _one_tensor(4, 4, 1, None),
    "a storage that says more than it has": _one_tensor(2**30, 2**30, 1, bytes(2**22), zipfile.ZIP_DEFLATED),
    "two pickles in one zip": _in_a_zip(b"}.", **{"data.pkl": b"}."}),
    "no pickle in the zip": _repacked(_in_a_zip(b"}."), lambda *_: b""),
}
SINGLE = {case: (".safetensors", content) for case, content in _SAFE.items()}
SINGLE |= {case: (".bin", content) for case, content in _PICKLES.items()}


def write(path: Path, suffix: str, content: bytes) -> Path:
    path = path.with_suffix(suffix)
    path.write_bytes(content)
    return path
