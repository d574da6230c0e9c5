"""Any adapter container (.safetensors, nested .bin/.pt, raw trainer output) -> plain tensors by role."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

# First match wins. Later packs and the accelerate trainer renamed the two roles of the release format
# {"image_proj": ..., "ip_adapter": ...}; an accelerate state also holds the frozen UNet, 'unet.', which is not ours.
_ROLES: tuple[tuple[str, str], ...] = (
    ("image_proj_model.", "image_proj"),
    ("image_proj.", "image_proj"),
    ("adapter_modules.", "ip_adapter"),
    ("ip_adapter.", "ip_adapter"),
)
_WRAPPERS = ("state_dict", "module", "model")
_LARGEST_HEADER = 100 * 1024 * 1024


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one adapter file. Keys of `image_proj` and `ip_adapter` are those of the release format."""

    name: str
    image_proj: Mapping[str, Tensor]
    ip_adapter: Mapping[str, Tensor]

    @property
    def shapes(self) -> Shapes:
        """Every tensor's shape, keys prefixed with `image_proj.` or `ip_adapter.`."""
        return {key: tuple(tensor.shape) for key, tensor in self.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """One flat dict, keys prefixed with the role; shares memory with the file where the format allows it."""
        flat = {f"image_proj.{key}": tensor for key, tensor in self.image_proj.items()}
        return flat | {f"ip_adapter.{key}": tensor for key, tensor in self.ip_adapter.items()}


@dataclass(frozen=True)
class Outline:
    """What a file holds, without its tensors: shapes by the file's own keys, and a safetensors header's metadata."""

    shapes: Shapes
    metadata: Mapping[str, str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read an adapter file; tensors stay memory-mapped where the format allows it, none is copied.

    Raises CheckpointError for anything but a whole, safe file that holds both roles.
    """
    path = Path(path)
    refuse_placeholder(path)
    tensors = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    _require_roles(path, {role for role, found in tensors.items() if found})
    return Checkpoint(path.name, tensors["image_proj"], tensors["ip_adapter"])


def read_shapes(path: str | Path) -> Shapes:
    """Shapes by role-prefixed key. Of a .safetensors file only the header is read, of a pickle no tensor data.

    Raises CheckpointError as `read_checkpoint` does.
    """
    return shapes_by_role(read_outline(path).shapes, Path(path))


def read_outline(path: str | Path) -> Outline:
    """Outline of any model file: of a .safetensors file only the header is read, of a zipped pickle no tensor data.

    Raises CheckpointError for anything but a whole, safe file.
    """
    path = Path(path)
    refuse_placeholder(path)
    if _is_safetensors(path):
        return _safetensors_outline(path)
    return Outline({key: tuple(tensor.shape) for key, tensor in _read_tensors(path)}, {})


def shapes_by_role(shapes: Shapes, path: Path) -> Shapes:
    """The adapter's part of an outline, role-prefixed. Raises CheckpointError where a role has no tensors."""
    found = [(*_role_of(key), shape) for key, shape in shapes.items()]
    by_role = {f"{role}.{name}": shape for role, name, shape in found if role}
    _require_roles(path, {role for role, _, _ in found if role})
    return by_role


def roles(shapes: Shapes) -> set[str]:
    """Which of an adapter's roles these keys have: 'image_proj', 'ip_adapter', both or none."""
    return {role for key in shapes if (role := _role_of(key)[0])}


def _require_roles(path: Path, found: set[str]) -> None:
    for role in ("image_proj", "ip_adapter"):
        if role not in found:
            raise CheckpointError(
                f"{path.name} holds no '{role}' tensors, so it is not an IP-Adapter. "
                "Expected 'image_proj' and 'ip_adapter' (or 'image_proj_model' and 'adapter_modules'). "
                "Check that it was not a LoRA, ControlNet or CLIP vision file put in the ipadapter folder."
            )


def _role_of(key: str) -> tuple[str | None, str]:
    for prefix, role in _ROLES:
        if key.startswith(prefix):
            return role, key[len(prefix) :]
    return None, key


def _by_role(items: Iterable[tuple[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    roles: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in items:
        role, name = _role_of(key)
        if role:
            roles[role][name] = tensor
    return roles


def refuse_placeholder(path: Path, what: str = "adapter file") -> None:
    """What a broken download leaves behind: nothing, a Git LFS pointer, or a web page. Raises CheckpointError."""
    if path.is_dir():
        raise CheckpointError(f"{path.name} is a folder, not an {what}; pick a file inside it.")
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Put the {what} there or pick another one.")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path.name} is empty (0 bytes). Download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path.name} is a Git LFS pointer of {path.stat().st_size} bytes, not the model itself. "
            "Run 'git lfs pull' in its folder, or download the file from its web page."
        )
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b'{"error', b"<head")):
        raise CheckpointError(
            f"{path.name} is a web page or an error message, not a model: the download went wrong. "
            "Download it again, logged in if the page asks for it."
        )


def _is_safetensors(path: Path) -> bool:
    """By content: the header is JSON after an eight-byte length. File names lie."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < _LARGEST_HEADER


def _safetensors_outline(path: Path) -> Outline:
    """Shapes and metadata, after a check that the file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        _require_size(path, size, 8 + length)
        raw = file.read(length)
    try:
        entries = cast("dict[str, Any]", json.loads(raw))
        metadata = {str(key): str(value) for key, value in (entries.pop("__metadata__", None) or {}).items()}
        shapes = {key: tuple(int(side) for side in entry["shape"]) for key, entry in entries.items()}
        data = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} has a damaged safetensors header ({type(error).__name__}: {error}). Download it again."
        ) from error
    _require_size(path, size, 8 + length + data)
    return Outline(shapes, metadata)


def _require_size(path: Path, size: int, expected: int) -> None:
    if size < expected:
        raise CheckpointError(
            f"{path.name} is truncated: {size:,} bytes of {expected:,}. The download stopped early; download it again."
        )


def _read_safetensors(path: Path) -> dict[str, dict[str, Tensor]]:
    header = _safetensors_outline(path)
    wanted = [key for key in header.shapes if _role_of(key)[0]]
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return _by_role((key, file.get_tensor(key)) for key in wanted)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path.name} is a damaged safetensors file ({error}). Download it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, dict[str, Tensor]]:
    return _by_role(_read_tensors(path))


def _read_tensors(path: Path) -> Iterable[tuple[str, Tensor]]:
    """Tensors of a pickle by their own keys, mapped from the file where its layout allows it."""
    data: Any = _unwrap(_unpickle(path))
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{path.name} holds a {type(data).__name__}, not a dictionary of tensors, so it is not an IP-Adapter. "
            "Pick another file."
        )
    return _flat_tensors(cast("Mapping[object, object]", data))


def _unpickle(path: Path) -> object:
    """`weights_only` and, for today's zip layout, memory-mapped: tensors of the frozen UNet are never read.

    By its path torch.load opens a file named .safetensors as one, whatever it holds; so it gets the open file.
    """
    try:
        if zipfile.is_zipfile(path) and path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # what a damaged pickle raises is not limited: IndexError, struct.error, ...
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise CheckpointError(_damaged(path)) from error
        raise CheckpointError(
            f"{path.name} contains pickled code ({code[1]}), which could do anything to your machine, and was not "
            "opened (only tensors are allowed). Get the .safetensors version of this adapter."
        ) from error


def _damaged(path: Path) -> str:
    return (
        f"{path.name} ({path.stat().st_size:,} bytes) is neither a safetensors nor a whole PyTorch file: "
        "it is truncated, or something else renamed. Compare its size with the download page and download it again."
    )


def _unwrap(data: Any) -> Any:
    """Trainers save {"state_dict": {...}} and the like around the tensors."""
    for wrapper in _WRAPPERS:
        if isinstance(data, Mapping) and isinstance(cast("Mapping[str, Any]", data).get(wrapper), Mapping):
            return cast("Mapping[str, Any]", data)[wrapper]
    return data


def _flat_tensors(data: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Tensor]]:
    for key, value in data.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat_tensors(cast("Mapping[Any, Any]", value), f"{prefix}{key}.")
