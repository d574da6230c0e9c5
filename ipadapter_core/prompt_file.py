"""Image prompts as .safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .adapter import TokenSource
from .checkpoint import read_outline
from .errors import CheckpointError, MismatchError, shown
from .files.writing import replacing
from .prompt import ImagePrompt
from .values import LARGEST_FEATURE, require_finite

FORMAT = "image-prompt/1"
# Tensors of a saved prompt; its value_scale is 'gains' in files.
_PARTS = ("cond", "uncond", "gains")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save_prompt(prompt: ImagePrompt, path: str | Path) -> None:
    """Write tokens and their provenance as .safetensors; the adapter itself is not stored, only named.

    Raises WriteError; the file is there whole or not at all.
    """
    spec = prompt.adapter.spec
    metadata = {
        "format": FORMAT,
        "adapter": shown(prompt.adapter.name),
        "adapter_digest": prompt.adapter.digest,
        "variant": spec.variant.value,
        "family": spec.family,
        "encoder": spec.encoder,
        "note": json.dumps(prompt.note),
    }
    if prompt.tokens_per_image is not None:
        metadata["tokens_per_image"] = str(prompt.tokens_per_image)
    tensors = {"cond": prompt.cond, "uncond": prompt.uncond, "gains": prompt.value_scale}
    with replacing(path, SafetensorError) as part:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, str(part), metadata)


def is_saved_prompt(path: str | Path) -> bool:
    """Whether the file's header says so; tensors are not read."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):  # ValueError: of a name that is no text
        return False


def load_prompt(adapter: TokenSource, path: str | Path) -> ImagePrompt:
    """Read a saved prompt for the adapter it was made with. Raises MissingFileError, CheckpointError or MismatchError."""
    name = shown(Path(path).name)
    try:
        outline = read_outline(path, "saved image prompt")
        metadata = outline.metadata
        tensors = outline.read(key for key in _PARTS if key in outline.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{name} is not a saved image prompt that can be read. {error}") from error
    if metadata.get("format") != FORMAT or tensors.keys() != set(_PARTS):
        raise CheckpointError(
            f"{name} is not a saved image prompt (format '{metadata.get('format')}', expected '{FORMAT}'). "
            "Pick a file that ImagePromptSave wrote."
        )
    if metadata.get("adapter_digest") != adapter.digest:
        raise MismatchError(
            f"{name} was made with {metadata.get('adapter')} ({metadata.get('variant')}, {metadata.get('family')}), "
            f"but {adapter.name} is connected. Its tokens mean something else there: load {metadata.get('adapter')}."
        )
    _check_saved(name, tensors, adapter.spec.token_width)
    cond, uncond, value_scale = (tensors[key].float() for key in _PARTS)
    size = _tokens_per_image(name, metadata.get("tokens_per_image"), cond, uncond)
    return ImagePrompt(adapter, cond, uncond, value_scale, _note(metadata.get("note", "{}")), size)


def _tokens_per_image(name: str, written: str | None, cond: Tensor, uncond: Tensor) -> int | None:
    if written is None:
        return None
    size = int(written) if written.isascii() and written.isdecimal() and len(written) < 10 else 0
    if size < 1 or cond.shape[1] % size or uncond.shape[1] % size:
        raise CheckpointError(
            f"{name} says that each image has {shown(written, 20)} tokens, and holds {cond.shape[1]} and {uncond.shape[1]}. "
            "The file was changed; save the prompt again."
        )
    return size


def _check_saved(name: str, tensors: dict[str, Tensor], width: int) -> None:
    """Raise CheckpointError unless these are whole tokens of this width, with a factor for each."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    cond, uncond, gains = (tensors[key] for key in _PARTS)
    fits = (
        {cond.ndim, uncond.ndim} == {3}
        and {cond.shape[-1], uncond.shape[-1]} == {width}
        and uncond.shape[0] in (1, cond.shape[0])
        and gains.shape == cond.shape[:2]
        and all(tensor.numel() for tensor in (cond, uncond, gains))
    )
    if not fits:
        raise CheckpointError(
            f"{name} holds tokens of shapes {shapes['cond']}, {shapes['uncond']} and gains {shapes['gains']}; expected "
            f"(rows, t, {width}), (1 or rows, t', {width}) and (rows, t), none of them 0. The file was changed; save the "
            "prompt again."
        )
    for key in _PARTS:
        if tensors[key].dtype not in _FLOATS:
            raise CheckpointError(
                f"{name} holds '{key}' as {tensors[key].dtype}; expected fp32, fp16 or bf16. The file was changed; save the "
                "prompt again."
            )
        try:
            require_finite(tensors[key], f"{name}: '{key}'", LARGEST_FEATURE)
        except MismatchError as error:
            raise CheckpointError(f"{error} Save the prompt again.") from error


def _note(written: str) -> dict[str, str]:
    """For people only: a damaged one is left out, the tokens are whole."""
    try:
        note = json.loads(written)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in note.items()} if isinstance(note, dict) else {}
