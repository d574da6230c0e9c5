"""Any adapter file (.safetensors, nested .bin or .pt, a trainer's own) -> plain tensors by role."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .errors import CheckpointError, MissingFileError, UnknownAdapterError, shown
from .files.header import is_safetensors, safetensors_outline
from .files.pickled import pickled_outline
from .files.stored import Outline, reading
from .foreign import foreign

Shapes = dict[str, tuple[int, ...]]

# First match wins. Later packs and the accelerate trainer renamed the two roles of the release format
# {"image_proj": ..., "ip_adapter": ...}; an accelerate state also holds the frozen UNet, 'unet.', which is not ours.
_ROLES: tuple[tuple[str, str], ...] = (
    ("ip_adapter_proj_model.", "image_proj"),
    ("image_proj_model.", "image_proj"),
    ("image_proj.", "image_proj"),
    ("adapter_modules.", "ip_adapter"),
    ("ip_adapter.", "ip_adapter"),
)
# Stands before all names where a module ran on several devices, or was compiled.
_WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.)+")
# The same matrices, as the UNet's attention processors: where each tensor is stored once, they are found there only.
_PROCESSOR = re.compile(
    r"(?:unet\.)?(down|up|mid)_blocks?\.((?:\w+\.)*)attn([12])\.processor\.(to_\w+\.)(?:0\.)?((?:down|up)\.)?weight",
    re.ASCII,
)
# XLabs' name for the pair of a double block of Flux.1 (x-flux, src/flux/xflux_pipeline.py)
_STREAM = re.compile(
    r"(?:ip_adapter\.)?double_blocks\.(\d{1,6})\.processor\.ip_adapter_double_stream_([kv])_proj\.(weight|bias)",
    re.ASCII,
)
# diffusers' names of the parts of a layer of InstantX's resampler for SD3.5 (loaders/transformer_sd3.py), and its own
_OF_INSTANTX = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_kv": "0.to_kv",
    "attn.to_out.0": "0.to_out",
    "adaln_norm": "1.0",
    "ff.net.0.proj": "1.1",
    "ff.net.2": "1.3",
    "adaln_proj": "2.1",
}
_LAYER = re.compile(
    rf"(layers\.\d{{1,3}}\.)({'|'.join(map(re.escape, _OF_INSTANTX))})(\.weight|\.bias)", re.ASCII
)
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_STAGES = ("down", "up", "mid")  # in the order of diffusers' attn_processors


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one adapter file. Keys of `image_proj` and `ip_adapter` are those of the release format."""

    name: str
    image_proj: Mapping[str, Tensor]
    ip_adapter: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        """Raises CheckpointError for what are no dense tensors of floats, as a dictionary of another pack may hold."""
        for part in (self.image_proj, self.ip_adapter):
            _require_mapping(self.name, part)
        _require_floats(self.name, {key: _kind(tensor) for key, tensor in self.state_dict().items()})

    @property
    def shapes(self) -> Shapes:
        """Every tensor's shape, keys prefixed with `image_proj.` or `ip_adapter.`."""
        return {key: tuple(tensor.shape) for key, tensor in self.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """One flat dict, keys prefixed with the role; the tensors are shared, not copied."""
        flat = {f"image_proj.{key}": tensor for key, tensor in self.image_proj.items()}
        return flat | {f"ip_adapter.{key}": tensor for key, tensor in self.ip_adapter.items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The adapter's own tensors, each read once and into memory of its own; not the frozen UNet of a trainer's state.

    Raises MissingFileError, and CheckpointError for anything but a whole, safe file that holds both roles.
    """
    path = Path(path)
    before = _stamp(path)
    outline = read_outline(path)
    names = adapter_keys(outline)
    tensors = outline.read(names)
    if _stamp(path) != before:
        raise CheckpointError(
            f"{shown(path.name)} changed while it was read. Load it again when it is whole."
        )
    roles: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, (role, name) in names.items():
        roles[role][name] = tensors[key]
    return Checkpoint(path.name, roles["image_proj"], roles["ip_adapter"])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns


def read_shapes(path: str | Path) -> Shapes:
    """Shapes by role-prefixed key; no tensor is read. Raises as `read_checkpoint` does."""
    return shapes_by_role(read_outline(path))


def read_outline(path: str | Path, what: str = "adapter file") -> Outline:
    """Outline of any model file: no tensor is read. what: the file that is wanted, for messages.

    Raises MissingFileError, and CheckpointError for anything but a whole, safe file.
    """
    path = Path(path)
    refuse_placeholder(path, what)
    with reading(path):
        return safetensors_outline(path) if is_safetensors(path) else pickled_outline(path)


def shapes_by_role(outline: Outline) -> Shapes:
    """The adapter's part of an outline, role-prefixed. Raises CheckpointError where it is none."""
    shapes = outline.shapes
    return {f"{role}.{name}": shapes[key] for key, (role, name) in adapter_keys(outline).items()}


def adapter_keys(outline: Outline) -> dict[str, tuple[str, str]]:
    """Role and name of each of the file's keys that is an adapter's.

    Raises CheckpointError where a role has no tensors, or one is no dense tensor of floats.
    """
    if what := foreign(outline.tensors):
        raise UnknownAdapterError(f"{shown(outline.path.name)} is {what}")
    names = role_names(outline.tensors)
    _require_roles(outline.path, {role for role, _ in names.values()})
    _require_floats(outline.path.name, {key: outline.tensors[key].kind for key in names})
    return names


def _require_mapping(name: str, part: object) -> None:
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{shown(name)} holds a {type(part).__name__} where tensors by name belong.")


def _require_floats(name: str, kinds: Mapping[str, str]) -> None:
    odd = next((f"{shown(key, 80)} is {kind}" for key, kind in kinds.items() if kind not in _FLOATS), None)
    if odd:
        raise CheckpointError(
            f"{shown(name)}: {odd}, and an adapter's tensors are {', '.join(_FLOATS)}. "
            "Download the file in one of these, or convert it."
        )


def _kind(tensor: object) -> str:
    """A dtype, or what keeps it from being plain numbers."""
    if not isinstance(tensor, Tensor):
        return f"a {type(tensor).__name__}"
    if tensor.is_quantized or tensor.is_nested:
        return "quantised" if tensor.is_quantized else "nested"
    return str(tensor.dtype if tensor.layout is torch.strided else tensor.layout).removeprefix("torch.")


def roles(shapes: Shapes) -> set[str]:
    """Which of an adapter's roles these keys have: 'image_proj', 'ip_adapter', both or none."""
    return {role for role, _ in role_names(shapes).values()}


def role_names(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Role and name in the release format of each key that is an adapter's.

    A UNet's attention processors count where the adapter's own modules are not in the file.
    """
    plain = {key: _WRAPPED.sub("", key) for key in keys}
    found = {key: split for key, name in plain.items() if (split := _role_of(name))}
    if all(role != "ip_adapter" for role, _ in found.values()):
        found |= _processors(plain)
    return found


def _role_of(key: str) -> tuple[str, str] | None:
    if match := _STREAM.fullmatch(key):
        return "ip_adapter", f"{match[1]}.to_{match[2]}_ip.{match[3]}"
    found = next(((role, key[len(prefix) :]) for prefix, role in _ROLES if key.startswith(prefix)), None)
    layer = _LAYER.fullmatch(found[1]) if found else None
    return ("image_proj", f"{layer[1]}{_OF_INSTANTX[layer[2]]}{layer[3]}") if layer else found


def _processors(keys: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Of keys as '[unet.]down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.weight'.

    diffusers numbers a UNet's processors in the order of its modules: down, up, middle; of a block attn1, then attn2.
    """
    found = {key: match for key, name in keys.items() if (match := _PROCESSOR.fullmatch(name))}
    if not any(match[4] == "to_k_ip." for match in found.values()):
        return {}  # a plain LoRA is named so too
    number = {block: 2 * n for n, block in enumerate(sorted({_block(match) for match in found.values()}))}
    return {
        key: ("ip_adapter", f"{number[_block(match)] + int(match[3]) - 1}.{match[4]}{match[5] or ''}weight")
        for key, match in found.items()
    }


def _block(match: re.Match[str]) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Sorts as the modules stand: by stage, then by numbers as numbers."""
    parts = match[2].strip(".").split(".")
    return _STAGES.index(match[1]), tuple((int(part) if part.isdecimal() else -1, part) for part in parts)


def _require_roles(path: Path, found: set[str]) -> None:
    if found != {"image_proj", "ip_adapter"} and re.search(r"-\d{5}-of-\d{5}\.", path.name):
        raise CheckpointError(
            f"{shown(path.name)} is one of several parts of a model, and an adapter is read from one file. "
            "Save it anew with a larger max_shard_size, or join the parts."
        )
    for role in ("image_proj", "ip_adapter"):
        if role not in found:
            raise CheckpointError(
                f"{shown(path.name)} holds no '{role}' tensors, so it is not an IP-Adapter. "
                "Expected 'image_proj' and 'ip_adapter' (or 'image_proj_model' and 'adapter_modules'). "
                "Check that it was not a LoRA, ControlNet or CLIP vision file put in the ipadapter folder."
            )


def refuse_placeholder(path: Path, what: str = "adapter file") -> None:
    """Refuse what is no file, or what a broken download leaves behind: nothing, a Git LFS pointer, a web page.

    what: the file that is wanted, for messages. Raises MissingFileError or CheckpointError.
    """
    name, remedy = shown(path.name), f"Put the {what} there or pick another one."
    with reading(path):
        if path.is_dir():
            raise CheckpointError(f"{name} is a folder; pick a file inside it.")
        is_file, exists = path.is_file(), path.exists()
    if not exists:
        raise MissingFileError(f"{shown(path)} does not exist. {remedy}")
    if not is_file:
        raise CheckpointError(
            f"{shown(path)} is no file that can be read, but a pipe, socket or device. {remedy}"
        )
    with reading(path), path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{name} is empty (0 bytes). Download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{name} is a Git LFS pointer, not the model itself. "
            "Run 'git lfs pull' in its folder, or download the file from its web page."
        )
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b'{"error', b"<head")):
        raise CheckpointError(
            f"{name} is a web page or an error message, not a model: the download went wrong. "
            "Download it again, logged in if the page asks for it."
        )
