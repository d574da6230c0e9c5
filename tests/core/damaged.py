"""Files that are no whole adapter, each as people meet it, and the words that the error must have for it."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from core.small import filled, flat, nested
from image_prompt.ipadapter_core.errors import CheckpointError, MissingFileError, UnknownAdapterError
from safetensors.torch import save, save_file
from support.layouts import base, keys_values
from torch import Tensor

CANARY = "code-was-run"  # the file that pickled code would make


class _Payload:
    """Unpickled without `weights_only`, this makes a file."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / CANARY),)


@dataclass(frozen=True)
class Damage:
    """make: writes the file. cause: what the message must say. remedy: what it must ask for."""

    make: Callable[[Path], object]
    cause: str
    remedy: str = "ownload"
    error: type[Exception] = CheckpointError
    name: str = "adapter.safetensors"


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _safe(tensors: dict[str, Tensor]) -> Callable[[Path], object]:
    return lambda path: save_file(tensors, path)


def _saved(make: Callable[[Path], object], keep: float | int) -> Callable[[Path], object]:
    """Only the first bytes of what `make` writes: a number of them, or a fraction."""

    def cut(path: Path) -> None:
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])

    return cut


def _pickled(legacy: bool = False) -> Callable[[Path], object]:
    return lambda path: torch.save(nested(flat()), path, _use_new_zipfile_serialization=not legacy)


def _header(header: bytes, length: int | None = None) -> Callable[[Path], object]:
    length = len(header) if length is None else length
    return _bytes(struct.pack("<Q", length) + header + bytes(64))


def _without(*keys: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in flat().items() if not key.startswith(keys)}


def _zip_with_a_spoilt_index(path: Path) -> None:
    _pickled()(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"image_proj") - 40
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)


def _half_a_header() -> int:
    return 8 + struct.unpack("<Q", save(flat())[:8])[0] // 2


_GARBAGE = bytes((31 * n * n + 7 * n + 3) % 256 for n in range(4096))
_ENTRY = {"dtype": "F32", "shape": [2, 2]}
_LORA = {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(4, 4)}
_CLIP = {
    "vision_model.embeddings.class_embedding": torch.zeros(4),
    "visual_projection.weight": torch.zeros(4, 4),
}
_SD15_KV = keys_values((32,) * 16, 768)
_K1, _V1 = "ip_adapter.3.to_k_ip.weight", "ip_adapter.3.to_v_ip.weight"
_PLUS_LAYER = "image_proj.layers."

DAMAGES: dict[str, Damage] = {
    "missing": Damage(lambda path: None, "does not exist", "pick another", error=MissingFileError),
    "folder": Damage(lambda path: path.mkdir(), "is a folder", "pick a file"),
    "empty": Damage(_bytes(b""), "empty (0 bytes)"),
    "HTML page": Damage(_bytes(b"\n<!DOCTYPE html><html><title>Sign in</title>"), "web page"),
    "XML error": Damage(_bytes(b'<?xml version="1.0"?><Error>AccessDenied</Error>'), "web page"),
    "JSON error": Damage(_bytes(b'{"error":"Repository not found"}'), "error message"),
    "plain text error": Damage(_bytes(b"Invalid username or password."), "(29 bytes)"),
    "LFS pointer": Damage(
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:289b\nsize 44642768\n"),
        "Git LFS pointer",
    ),
    "cut in the header's length": Damage(_saved(_safe(flat()), 5), "truncated"),
    "cut in the header": Damage(_saved(_safe(flat()), _half_a_header()), "truncated"),
    "cut after the header": Damage(_saved(_safe(flat()), 2 * _half_a_header() - 8), "truncated"),
    "cut in the data": Damage(_saved(_safe(flat()), 0.9), "truncated"),
    "one byte short": Damage(_saved(_safe(flat()), len(save(flat())) - 1), "truncated"),
    "bin cut in the first entry": Damage(_saved(_pickled(), 100), "truncated", name="adapter.bin"),
    "bin cut in the data": Damage(_saved(_pickled(), 0.7), "truncated", name="adapter.bin"),
    "bin without its last bytes": Damage(_saved(_pickled(), 0.99), "truncated", name="adapter.bin"),
    "bin with a spoilt index": Damage(_zip_with_a_spoilt_index, "adapter.bin", name="adapter.bin"),
    "legacy bin cut at the start": Damage(_saved(_pickled(legacy=True), 60), "truncated", name="adapter.bin"),
    "legacy bin cut in the data": Damage(_saved(_pickled(legacy=True), 0.8), "truncated", name="adapter.bin"),
    "cut, with the wrong name": Damage(_saved(_pickled(), 0.7), "truncated"),
    "pickled code": Damage(
        lambda path: torch.save({"image_proj": _Payload(path.parent)}, path),
        "pickled code",
        "Get",
        name="a.bin",
    ),
    "pickled code, legacy": Damage(
        lambda path: torch.save(_Payload(path.parent), path, _use_new_zipfile_serialization=False),
        "pickled code",
        "Get",
        name="a.pt",
    ),
    "pickled code, bare": Damage(
        lambda path: path.write_bytes(pickle.dumps(_Payload(path.parent), protocol=2)), "pickled code", "Get"
    ),
    "list": Damage(lambda path: torch.save([torch.zeros(2)], path), "holds a list", "Pick", name="a.bin"),
    "one tensor": Damage(
        lambda path: torch.save(torch.zeros(2), path), "holds a Tensor", "Pick", name="a.bin"
    ),
    "bare pickle of a list": Damage(
        lambda path: path.write_bytes(pickle.dumps([1, 2, 3], protocol=2)),
        "neither a safetensors nor",
        name="a.bin",
    ),
    "random bytes": Damage(_bytes(_GARBAGE), "neither a safetensors nor"),
    "random bytes, bin": Damage(_bytes(_GARBAGE), "neither a safetensors nor", name="a.bin"),
    "random bytes after a pickle's start": Damage(_bytes(b"\x80\x02" + _GARBAGE), "a.bin", name="a.bin"),
    "header length absurd": Damage(_header(b'{"a":1}', length=2**60), "neither a safetensors nor"),
    "header longer than the file": Damage(_header(b'{"a":1}', length=10**6), "truncated"),
    "header not JSON": Damage(_header(b"{not json at all}"), "damaged safetensors header"),
    "header not text": Damage(_header(b"{\xff\xfe\xfd\xfc}"), "damaged safetensors header"),
    "header without offsets": Damage(
        _header(json.dumps({"a": _ENTRY}).encode()), "damaged safetensors header"
    ),
    "header with no numbers in offsets": Damage(
        _header(json.dumps({"a": _ENTRY | {"data_offsets": []}}).encode()), "damaged safetensors header"
    ),
    "header with words for offsets": Damage(
        _header(json.dumps({"a": _ENTRY | {"data_offsets": ["x", "y"]}}).encode()),
        "damaged safetensors header",
    ),
    "header without shapes": Damage(
        _header(json.dumps({"image_proj.a": {"dtype": "F32", "data_offsets": [0, 16]}}).encode()),
        "damaged safetensors header",
    ),
    "header nested without end": Damage(_header(b'{"a":' * 50_000), "damaged safetensors header"),
    "offsets against shapes": Damage(
        _header(json.dumps({"image_proj.a": _ENTRY | {"data_offsets": [0, 7]}}).encode()),
        "adapter.safetensors",
    ),
    "no image_proj": Damage(_safe(_without("image_proj")), "no 'image_proj' tensors", "Check"),
    "no ip_adapter": Damage(_safe(_without("ip_adapter")), "no 'ip_adapter' tensors", "Check"),
    "LoRA": Damage(_safe(_LORA), "no 'image_proj' tensors", "Check"),
    "CLIP vision": Damage(_safe(_CLIP), "no 'image_proj' tensors", "Check"),
    "no to_v_ip at one site": Damage(_safe(_without(_V1)), "3.to_v_ip.weight", error=UnknownAdapterError),
    "uneven site": Damage(
        _safe(flat() | {_V1: torch.zeros(8, 24)}), "do not agree in shape", error=UnknownAdapterError
    ),
    "two context widths": Damage(
        _safe(flat() | {_K1: torch.zeros(32, 9), _V1: torch.zeros(32, 9)}),
        "do not agree in shape",
        error=UnknownAdapterError,
    ),
    "K' that is no matrix": Damage(
        _safe(flat() | {_K1: torch.zeros(32), _V1: torch.zeros(32)}),
        "do not agree in shape",
        error=UnknownAdapterError,
    ),
    "projection that is no matrix": Damage(
        _safe(flat() | {"image_proj.proj.weight": torch.zeros(96)}), "proj.weight", error=UnknownAdapterError
    ),
    "SDXL projection, SD1.5 sites": Damage(
        _safe(filled(base(4, 2048) | _SD15_KV)), "mixes two adapters", error=UnknownAdapterError
    ),
    "rows that are no whole tokens": Damage(
        _safe(flat() | {"image_proj.proj.weight": torch.zeros(95, 12)}), "95 rows", error=UnknownAdapterError
    ),
    "resampler without layers": Damage(
        _safe({k: t for k, t in flat("plus").items() if not k.startswith(_PLUS_LAYER)}),
        "layers.0.0.to_q.weight",
        error=UnknownAdapterError,
    ),
    "resampler without a norm": Damage(
        _safe({k: t for k, t in flat("plus").items() if k != "image_proj.layers.1.0.norm2.bias"}),
        "layers.1.0.norm2.bias",
    ),
    "one layer of another size": Damage(
        _safe(flat("plus") | {"image_proj.layers.1.1.1.weight": torch.zeros(8, 8)}), "layers.1.1.1.weight"
    ),
    "sites without numbers": Damage(
        _safe(_without("ip_adapter") | {"ip_adapter.down.to_k_ip.weight": torch.zeros(4, 24)}),
        "no 'N.to_k_ip.weight'",
        error=UnknownAdapterError,
    ),
    "dictionary without tensors": Damage(
        lambda path: torch.save(OrderedDict(image_proj=3, ip_adapter="x"), path),
        "no 'image_proj' tensors",
        "Check",
        name="a.bin",
    ),
}
