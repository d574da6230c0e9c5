"""Stand-ins for what a user has: models under their public names, and pictures. The nodes that find them are real."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.clip_vision
import folder_paths
import torch
from core.outlines import VIT_H, encoder, write_outline
from image_prompt.host import face_models, folders
from safetensors.torch import save_file
from support import layouts, tiny
from torch import Tensor

from . import face_graphs, flux_stand_ins

ENCODER = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
_, WIDTH, EMBEDS, _ = VIT_H
LORA_RANK = 4
# Small, but for ViT-H: by name the family, the image projection and the rank of a LoRA inside.
ADAPTERS = {
    "ip-adapter_sd15.safetensors": (tiny.SD15, layouts.base(EMBEDS, 768), 0),
    "ip-adapter-plus_sd15.safetensors": (tiny.SD15, layouts.plus(WIDTH, 768, 128, 2), 0),
    "ip-adapter-plus_sdxl_vit-h.safetensors": (tiny.SDXL, layouts.plus(WIDTH, 2048, 128, 2), 0),
    "ip-adapter-faceid_sd15.bin": (tiny.SD15, layouts.faceid(768), LORA_RANK),
    "ip-adapter-faceid-plusv2_sd15.bin": (
        tiny.SD15,
        layouts.faceid_plus(WIDTH, 768, heads=2, hidden=128),
        LORA_RANK,
    ),
}


def write_models(folder: Path) -> Path:
    """A models folder: small random adapters, toy face models, and of ViT-H as much as tells what it is."""
    for name in (folders.ADAPTERS, "clip_vision", "loras"):
        (folder / name).mkdir()
    for name, (family, projection, rank) in ADAPTERS.items():
        write_adapter(folder / folders.ADAPTERS / name, family, projection, rank)
    write_outline(folder / "clip_vision" / ENCODER, encoder(*VIT_H))
    flux_stand_ins.write_models(folder)
    face_graphs.toy_pack(folder / "insightface" / "models" / "buffalo_l")
    return folder


def write_adapter(path: Path, family: tiny.Family, projection: layouts.Table, rank: int) -> None:
    """In the container of the released file: .safetensors, or a pickle of nested tensors as .bin."""
    widths = tiny.site_widths(family)
    table = projection | layouts.keys_values(widths, family.context)
    table |= layouts.lora(widths, family.context, rank) if rank else {}
    flat = tiny.random_({key: torch.zeros(shape) for key, shape in table.items()}, seed=7)
    if path.suffix == ".safetensors":
        save_file(flat, path)
        return
    nested: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in flat.items():
        role, rest = key.split(".", 1)
        nested[role][rest] = tensor
    torch.save(nested, path)


def use_models(models: Path, monkeypatch: Any) -> None:
    """Make them the host's models; its loader of CLIP vision gives a small encoder for each file, ViT-H for most."""
    for name in (folders.ADAPTERS, "clip_vision", "loras"):
        paths = ([str(models / name)], set(folders.EXTENSIONS))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
    monkeypatch.delitem(folder_paths.folder_names_and_paths, face_models.INSIGHTFACE, raising=False)
    monkeypatch.setattr(folder_paths, "models_dir", str(models))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(models / "user"), raising=False)
    monkeypatch.setattr(comfy.clip_vision, "load", _loaded)


def _loaded(path: str, *_: Any) -> Any:
    return flux_stand_ins.encoder_named(Path(path).name) or clip_vision()


@lru_cache(maxsize=1)
def clip_vision() -> Any:
    """As wide as ViT-H, and otherwise small."""
    return tiny.clip_vision(WIDTH, layers=2, projection=EMBEDS)


# --- pictures ----------------------------------------------------------------------------------------------------


def reference(seed: int) -> tuple[Tensor, Tensor]:
    """What LoadImage gives: a picture (1, 64, 64, 3) with a hard edge somewhere, and its empty mask."""
    picture = tiny.picture(40 + seed, 64, 64)
    picture[:, :, 8 * (1 + seed % 6) :] *= 0.25
    return picture, torch.zeros(1, 64, 64)


def people(left: int, right: int) -> tuple[Tensor, Tensor]:
    """What LoadImage gives: a picture of two toy people (0..255), the left one larger, and its empty mask.

    Near numbers look alike, as pictures of one person do.
    """
    picture = face_graphs.canvas(480, 640, (60, 140, 180, left), (380, 160, 140, right))
    return picture, torch.zeros(1, 480, 640)
