"""Small models, adapters as files in the host's folders, and nodes called by their ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from helpers import faces, stand_ins
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from safetensors.torch import load_file, save_file
from support import sampling, tiny
from torch import Tensor

PICTURES = ("base", "plus", "full")
FACES = ("faceid", "faceid plus", "faceid plus v2", "faceid portrait", "faceid portrait unnorm", "instantid")
KOLORS = ("plus kolors", "faceid kolors")
FAMILIES = {"SD1.5": PICTURES + FACES, "SDXL": PICTURES + FACES, "Kolors": ("base", *KOLORS)}
TWINS = ("faceid plus", "faceid plus v2", "faceid portrait unnorm", "instantid")  # only a setting tells them
TEXT_WIDTH = 4096  # of Kolors, before its UNet's own projection
POOLED = 49  # a square number: the older enhancer folds pooled vectors to squares
EXACT_LEGACY = "IMAGE_PROMPT_EXACT_LEGACY"
_numbers = count()
_folder: list[Path] = []


def use(folder: Path) -> None:
    """Make this folder the host's: for models, inputs, outputs and what is remembered of a user."""
    _folder[:] = [folder]
    stand_ins.use_models(stand_ins.write_models(folder), pytest.MonkeyPatch())
    for kind in ("input", "output"):
        (folder / kind).mkdir()
        setattr(folder_paths, f"get_{kind}_directory", lambda kind=kind: str(folder / kind))


def folder() -> Path:
    return _folder[0]


# --- models ------------------------------------------------------------------------------------------------------


def shape(family: str) -> tiny.Family:
    """What the UNet is called with."""
    if family != "Kolors":
        return tiny.FAMILIES[family]
    return replace(tiny.SDXL, unet=tiny.SDXL.unet | {"context_dim": TEXT_WIDTH})


@lru_cache(maxsize=1)
def model(family: str) -> Any:
    if family != "Kolors":
        return tiny.host_model(tiny.FAMILIES[family])
    made = tiny.host_model(tiny.SDXL)
    unet = made.model.diffusion_model

    class KolorsUNet(type(unet)):
        def forward(self, x: Tensor, timesteps: Any = None, context: Any = None, **options: Any) -> Tensor:
            return super().forward(x, timesteps, context=self.encoder_hid_proj(context), **options)

    unet.encoder_hid_proj = torch.nn.Linear(TEXT_WIDTH, 2048).requires_grad_(False)
    tiny.random_(unet.encoder_hid_proj.state_dict(), 81)
    unet.__class__ = KolorsUNet
    return made


@lru_cache(maxsize=3)
def encoder(family: str, kind: str = "") -> Any:
    """Of Kolors it sees 336 pixels; 17 tokens each."""
    if family == "Kolors":
        return tiny.clip_vision(1024 if kind == "plus kolors" else 64, 2, POOLED, size=336, patch=84)
    return tiny.clip_vision(projection=POOLED)


def adapter(family: str, kind: str, rank: int = 0) -> Any:
    """From its file, by the loader. rank: of a LoRA inside."""
    name = f"{family} {kind} {rank}.safetensors"
    path = _folder[0] / "ipadapter" / name
    if not path.exists():
        save_file(tiny.flat(_tensors(family, kind, rank)), path)
    variant = kind if kind in TWINS else "by content"
    return _loaded(name, variant)


@lru_cache(maxsize=3)
def _loaded(name: str, variant: str) -> Any:
    folder_paths.filename_list_cache.clear()
    return call("ImagePromptLoader", ipadapter_file=name, variant=variant)[0]


def _tensors(family: str, kind: str, rank: int) -> dict[str, dict[str, Tensor]]:
    small = tiny.SD15 if family == "SD1.5" else tiny.SDXL
    layout = {"instantid": "faceid portrait unnorm", "plus kolors": "base"}.get(kind, kind)
    made = tiny.adapter_tensors(layout, small, lora_rank=rank)
    if kind == "base":
        made["image_proj"] = tiny.random_(tiny.image_proj("base", POOLED, small.context), 7)
    if kind == "plus kolors":
        table = tiny.layouts.perceiver("image_proj", 1024, 2048, 2048, 2, depth=1, hidden=128)
        table["image_proj.latents"] = (1, 16, 2048)
        proj = {key.removeprefix("image_proj."): torch.zeros(sides) for key, sides in table.items()}
        made["image_proj"] = tiny.random_(proj, 7)
    return made


# --- nodes -------------------------------------------------------------------------------------------------------


def declared(node_id: str) -> dict[str, Any]:
    """Type, or choices, and options of every input, the required ones first."""
    inputs = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def required(node_id: str) -> dict[str, Any]:
    return NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES().get("required", {})


def default(declared: Any) -> Any:
    """Of a menu its first choice; None for what must be connected."""
    options = declared[1] if len(declared) > 1 else {}
    first = declared[0][0] if isinstance(declared[0], list | tuple) and declared[0] else None
    return options.get("default", first)


def call(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    """All outputs of one node, at its defaults but for `inputs`; None, and what it has no input for, is left out."""
    node = NODE_CLASS_MAPPINGS[node_id]()
    defaults = {name: default(each) for name, each in required(node_id).items()}
    given = {name: value for name, value in inputs.items() if name in declared(node_id) and value is not None}
    values = {name: value for name, value in defaults.items() if value is not None} | given
    if getattr(node, "INPUT_IS_LIST", False):
        values = {n: v if isinstance(v, list) else [v] for n, v in values.items()}
    out = getattr(node, node.FUNCTION)(**values)
    return out.get("result", ()) if isinstance(out, dict) else out


@contextmanager
def exact(legacy: bool) -> Iterator[None]:
    """With or without the older pack's errors."""
    os.environ[EXACT_LEGACY] = "1" if legacy else "0"
    try:
        yield
    finally:
        del os.environ[EXACT_LEGACY]


# --- what comes out ----------------------------------------------------------------------------------------------


def forward(steered: Any, family: str, **options: Any) -> Tensor:
    """One UNet call, of 2 pictures and both sides unless said."""
    return tiny.run_unet(steered, shape(family), **{"pictures": 2, "size": (8, 12)} | options)


def sampled(steered: Any, family: str, **options: Any) -> Tensor:
    """Through the host's sampler, with the LoRA that lies on the model; nothing of it stays."""
    try:
        return sampling.sample(steered, shape(family), **{"steps": 2, "size": (8, 12)} | options)
    finally:
        mm.unload_all_models()


def written(prompt: Any) -> dict[str, Tensor]:
    """The tensors of the file that Save writes."""
    return load_file(saved(prompt))


def saved(prompt: Any) -> Path:
    prefix = f"image_prompts/p{next(_numbers)}"
    call("ImagePromptSave", image_prompt=prompt, filename_prefix=prefix)
    (path,) = _folder[0].glob(f"output/{prefix}_*")
    return path


def picture(seed: int = 1, pictures: int = 1, height: int = 40, width: int = 56) -> Tensor:
    return tiny.picture(seed, height, width, pictures)


def people() -> Tensor:
    """With two faces that the toy detector sees."""
    return stand_ins.people(40, 220)[0]


def mask(rows: int = 1, seed: int = 2) -> Tensor:
    return torch.rand(rows, 20, 28, generator=torch.Generator().manual_seed(seed))


def prompt(family: str, kind: str, seed: int = 1, pictures: int = 1, rank: int = 0, **options: Any) -> Any:
    """An image prompt by the node that encodes for this kind of adapter."""
    given = {"ipadapter": adapter(family, kind, rank), "clip_vision": encoder(family, kind)} | options
    if kind in FACES or kind == "faceid kolors":
        return call("ImagePromptEncodeFace", faces=faces.given_faces(pictures, 70 + seed), **given)[0]
    return call("ImagePromptEncode", image=picture(seed, pictures), **given)[0]
