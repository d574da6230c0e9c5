"""The de-facto pack beside ours: live, in the same host, on the same small random models.

IPADAPTER_PLUS_PATH names its checkout, COMFYUI_PATH a host that it runs on (0.8.0). Nothing of it is in this repository.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from support import layouts
from torch import Tensor

from . import tiny
from .oracle import lively_
from .parity import lively_encoder, make_batch

VARIABLE, FIRST_VARIABLE = "IPADAPTER_PLUS_PATH", "IPADAPTER_V1_PATH"
PROJECTION = 49  # a square number: its enhancer folds pooled vectors to squares


@lru_cache(maxsize=1)
def pack() -> ModuleType:
    """The pack's main module. Raises RuntimeError without its checkout: a comparison with nothing is no test."""
    module = loaded(
        VARIABLE, "de_facto_pack", "a checkout of ComfyUI_IPAdapter_plus, and COMFYUI_PATH to a host for it"
    )
    _let_full_run_on_sdxl(module)
    return module


@lru_cache(maxsize=1)
def first_pack() -> ModuleType:
    """The same of the first generation."""
    return loaded(
        FIRST_VARIABLE, "first_generation_pack", "a checkout of ComfyUI_IPAdapter_plus at 6a411dc (2024-02)"
    )


def loaded(variable: str, package_name: str, what: str) -> ModuleType:
    folder = os.environ.get(variable)
    if not folder or not (Path(folder) / "IPAdapterPlus.py").is_file():
        raise RuntimeError(f"set {variable} to {what}")
    spec = importlib.util.spec_from_file_location(
        package_name, Path(folder) / "__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[package_name] = package
    spec.loader.exec_module(package)
    return sys.modules[f"{package_name}.IPAdapterPlus"]


def _let_full_run_on_sdxl(module: ModuleType) -> None:
    """It sizes an SDXL 'full' projection 1280 wide and feeds it to K'/V' of 2048: only that one width is put right."""
    original = module.IPAdapter.init_proj_full

    def init_proj_full(self: Any) -> Any:
        own, self.cross_attention_dim = self.cross_attention_dim, self.output_cross_attention_dim
        try:
            return original(self)
        finally:
            self.cross_attention_dim = own

    module.IPAdapter.init_proj_full = init_proj_full


def run(classes: dict[str, type], node_id: str, **inputs: Any) -> Any:
    """Whole return tuple of a node, its menu defaults filled in."""
    node = classes[node_id]()
    required = node.INPUT_TYPES().get("required", {})
    defaults = {name: _default(declared) for name, declared in required.items()}
    given = {name: value for name, value in defaults.items() if value is not None} | inputs
    return getattr(node, node.FUNCTION)(**given)


def _default(declared: Any) -> Any:
    options = declared[1] if len(declared) > 1 else {}
    if "default" in options:
        return options["default"]
    return declared[0][0] if isinstance(declared[0], (list, tuple)) and declared[0] else None


def theirs(node_id: str, **inputs: Any) -> Any:
    return run(pack().NODE_CLASS_MAPPINGS, node_id, **inputs)


def ours(node_id: str, **inputs: Any) -> Any:
    return run(OURS, node_id, **inputs)


@dataclass
class Setup:
    """The same model, encoder, adapter tensors (the raw IPADAPTER dict) and picture for both."""

    family: tiny.Family
    kind: str
    model: Any
    encoder: Any
    adapter: dict[str, dict[str, Tensor]]

    @property
    def image(self) -> Tensor:
        return tiny.picture(1, 64, 64)

    @property
    def pipeline(self) -> dict[str, dict[str, Any]]:
        return {
            "clipvision": {"file": "encoder", "model": self.encoder},
            "ipadapter": {"file": "adapter", "model": self.adapter},
            "insightface": {"provider": None, "model": None},
        }

    def forward(
        self, model: Any, chunks=(1, 0), pictures=1, size=(16, 16), sigma=1.0, **options: Any
    ) -> Tensor:
        """One UNet call with the options that a sampler would set."""
        batch = make_batch(self.family, chunks, pictures, size)
        told = {
            "cond_or_uncond": list(chunks),
            "sigmas": torch.full((len(batch.x),), sigma),
        } | options
        y = {} if batch.y is None else {"y": batch.y}
        times = torch.full((len(batch.x),), batch.timestep)
        return tiny.call_unet(model, batch.x, times, batch.context, told, **y)


@lru_cache(maxsize=8)
def setup(family_name: str, kind: str) -> Setup:
    family = tiny.FAMILIES[family_name]
    return Setup(family, kind, _model(family_name), encoder(), _adapter(family, kind))


@lru_cache(maxsize=2)
def _model(family_name: str) -> Any:
    family = tiny.FAMILIES[family_name]
    empty = tiny.host_model(family)
    state = {k: v.clone() for k, v in empty.get_model_object("diffusion_model").state_dict().items()}
    lively_(state, seed=21)
    return tiny.host_model(family, state)


@lru_cache(maxsize=2)
def encoder(size: int = 224, patch: int = 56, width: int = 64) -> Any:
    """224 pixels, since the pack cuts pictures to 224 whatever the encoder says; 17 tokens."""
    return lively_encoder(seed=5, width=width, projection=PROJECTION, size=size, patch=patch)


def _adapter(family: tiny.Family, kind: str) -> dict[str, dict[str, Tensor]]:
    """Resamplers have their released width, which the pack has in its code."""
    width = 1280 if family.name == "SDXL" else family.context
    feature = PROJECTION if kind == "base" else 64
    heads = 20 if family.name == "SDXL" else 12
    if kind == "plus":
        proj = layouts.plus(feature, family.context, width, heads)
        tensors = {key.removeprefix("image_proj."): torch.zeros(shape) for key, shape in proj.items()}
    else:
        tensors = tiny.image_proj(kind, feature, family.context)
    table = layouts.keys_values(tiny.site_widths(family), family.context)
    matrices = {key.removeprefix("ip_adapter."): torch.zeros(shape) for key, shape in table.items()}
    lively_(tensors, seed=31)
    lively_(matrices, seed=32)
    return {"image_proj": tensors, "ip_adapter": matrices}
