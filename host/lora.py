"""The LoRA that comes with FaceID adapters, through the host's own LoRA path, once for each model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from ..ipadapter_core.adapter import TokenSource
from ..ipadapter_core.checkpoint import read_outline
from ..ipadapter_core.families.matching import match_sites
from ..ipadapter_core.families.table import model_sites
from ..ipadapter_core.lora import lora_by_module
from .adapters import HostAdapter

# In model_options: digests of the adapters whose LoRA is settled.
MARK = "image_prompt_loras"
log = logging.getLogger(__name__)


def ensure_lora(
    model: Any, adapter: TokenSource, strength: float = 1.0, separate: Mapping[str, Tensor] | None = None
) -> Any:
    """A clone of `model` with the adapter's LoRA, or `model` itself where that is settled already or there is none.

    The first call for an adapter settles it, with strength 0 too: then the LoRA stays off for good.
    separate: the LoRA of a file of its own, instead of that inside the adapter.
    """
    marks = model.model_options.get(MARK, ())
    own = adapter.lora if isinstance(adapter, HostAdapter) else {}
    if not (separate or own) or adapter.digest in marks:
        return model
    sites = model_sites(model.get_model_object("diffusion_model"))
    indices = match_sites(adapter.spec, adapter.name, sites)
    matrices = lora_by_module(own, adapter.spec, sites, indices)
    inner = {f"diffusion_model.{key}": matrix for key, matrix in matrices.items()}
    if inner and _has(model, inner):
        log.info("Image Prompt: the LoRA of %s is on the model already and is not added again.", adapter.name)
        strength = 0.0
    patched = _patched(model, separate or inner, strength)
    patched.model_options[MARK] = (*marks, adapter.digest)
    return patched


def _patched(model: Any, lora: Mapping[str, Tensor], strength: float) -> Any:
    """A clone of the model with the LoRA; at strength 0 without."""
    if not strength:
        return model.clone()
    return comfy.sd.load_lora_for_models(model, None, dict(lora), strength, 0.0)[0]


def lora_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file, for `ensure_lora`, in memory of their own. Raises CheckpointError."""
    outline = read_outline(path)
    return outline.read(outline.tensors)


def _has(model: Any, lora: Mapping[str, Tensor]) -> bool:
    """Whether a LoRA loader put these matrices on the model: those of the first module are compared."""
    up_key = next(key for key in lora if key.endswith(".lora_up.weight"))
    module = up_key.removesuffix(".lora_up.weight")
    ours = lora[up_key], lora[f"{module}.lora_down.weight"]
    patches = model.patches.get(f"{module}.weight", [])
    return any(_equal(ours, _matrices(patch[1])) for patch in patches)


def _matrices(patch: Any) -> tuple[Any, ...]:
    """(up, down) of a host's patch value: an object with `weights`, on older hosts ('lora', (up, down, ...))."""
    if isinstance(patch, tuple) and len(patch) == 2 and patch[0] == "lora":
        return tuple(patch[1][:2])
    return tuple(getattr(patch, "weights", ())[:2])


def _equal(ours: tuple[Tensor, ...], theirs: tuple[Any, ...]) -> bool:
    return len(theirs) == 2 and all(
        isinstance(b, Tensor)
        and a.shape == b.shape
        and torch.allclose(a.float(), b.float().to(a.device), 1e-2, 1e-4)
        for a, b in zip(ours, theirs, strict=True)
    )
