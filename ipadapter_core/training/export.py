"""Adapters as files in the released layout, which this pack, diffusers and the older pack load."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint import Checkpoint
from ..errors import SettingError
from ..files.writing import replacing
from ..variants import detect

SUFFIXES = (".safetensors", ".bin")
_FIRST_PAIR = "0.to_k_ip"
_PAIR = re.compile(r"ip_adapter\.(\d+)\.to_([kv])_ip\.(weight|bias)", re.ASCII)


def save_adapter(
    adapter: Checkpoint,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write flat safetensors keys (image_proj.*, ip_adapter.*; XLabs' own for its adapters) or the nested .bin, by the
    suffix; whole or not at all.

    metadata: text for the safetensors header. dtype: to store as, else as the tensors are.
    Raises SettingError for another suffix, WriteError.
    """
    if path.suffix not in SUFFIXES:
        raise SettingError(
            f"an adapter cannot be written as '{path.suffix or path.name}'; allowed are {' and '.join(SUFFIXES)}."
        )
    parts = [
        {k: _standalone(t, dtype) for k, t in part.items()}
        for part in (adapter.image_proj, adapter.ip_adapter)
    ]
    whole = Checkpoint(adapter.name, *parts)
    with replacing(path, SafetensorError) as part:
        if path.suffix == ".bin":
            # not to the file itself: torch does not say why it could not write
            content = io.BytesIO()
            torch.save({"image_proj": whole.image_proj, "ip_adapter": whole.ip_adapter}, content)
            part.write_bytes(content.getbuffer())
        else:
            save_file(_released(whole), part, {"format": "pt", **_what_for(whole), **(metadata or {})})
    return path


def save_lora(lora: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a LoRA's tensors as .safetensors, whole or not at all. Raises WriteError."""
    with replacing(path, SafetensorError) as part:
        tensors = {key: _standalone(tensor, None) for key, tensor in lora.items()}
        save_file(tensors, part, {"format": "pt", **(metadata or {})})
    return path


def _released(adapter: Checkpoint) -> dict[str, Tensor]:
    """By the keys of released files. XLabs', whose pairs have biases, have names of their own, which its code looks for."""
    flat = adapter.state_dict()
    if f"{_FIRST_PAIR}.bias" not in adapter.ip_adapter:
        return flat
    return {_xlabs_key(key): tensor for key, tensor in flat.items()}


def _xlabs_key(key: str) -> str:
    """As x-flux and x-flux-comfyui read it (xflux_pipeline.py, nodes.py)."""
    match = _PAIR.fullmatch(key)
    if match is None:
        return key.replace("image_proj.", "ip_adapter_proj_model.", 1)
    number, role, part = match.groups()
    return f"double_blocks.{number}.processor.ip_adapter_double_stream_{role}_proj.{part}"


def _standalone(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy with memory of its own: safetensors refuses tensors that share theirs."""
    return tensor.detach().to("cpu", dtype or tensor.dtype, copy=True).contiguous()


def _what_for(adapter: Checkpoint) -> dict[str, str]:
    """Of an adapter in this pack's own layout, for whoever reads the file: model, sites and formula."""
    if "-" not in next(iter(adapter.ip_adapter), "").partition(".")[0]:
        return {}
    spec = detect(adapter.shapes, adapter.name)
    return {
        "image_prompt_model": spec.family,
        "image_prompt_sites": f"{len(spec.site_keys)}: the image rows of each block's attention",
        "image_prompt_formula": "out + weight * softmax(q K'^T / sqrt(d)) V' before the block's projection of out; q as the "
        "attention gets it, under the model's norm and rotated; K' by its root mean square in each head",
    }
