"""Small files under the names that clients look for or download, beside those of the tests' stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch
from core.outlines import VIT_G, encoder, write_outline
from helpers import stand_ins
from helpers.stand_ins import EMBEDS, LORA_RANK, WIDTH
from safetensors.torch import save_file
from support import layouts, tiny

BIGG_FILE = "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"
_FACES = {
    "faceid": lambda context: layouts.faceid(context),
    "faceid-plus": lambda context: layouts.faceid_plus(WIDTH, context, heads=2, hidden=128),
    "faceid-plusv2": lambda context: layouts.faceid_plus(WIDTH, context, heads=2, hidden=128),
}
# By name the family, the image projection and the rank of a LoRA inside.
ADAPTERS: dict[str, tuple[tiny.Family, layouts.Table, int]] = {
    "sd15_light_v11.bin": (tiny.SD15, layouts.base(EMBEDS, 768), 0),
    "ip-adapter_sd15_vit-G.safetensors": (tiny.SD15, layouts.base(VIT_G[2], 768), 0),
    "ip-adapter-plus-face_sd15.safetensors": (tiny.SD15, layouts.plus(WIDTH, 768, 128, 2), 0),
    "full_face_sd15.safetensors": (tiny.SD15, layouts.full(WIDTH, 768), 0),
    "ip-adapter-faceid-portrait-v11_sd15.bin": (tiny.SD15, layouts.faceid(768, 16), 0),
    "ip-adapter_sdxl_vit-h.safetensors": (tiny.SDXL, layouts.base(EMBEDS, 2048), 0),
    "ip-adapter_sdxl.safetensors": (tiny.SDXL, layouts.base(VIT_G[2], 2048), 0),
    "ip-adapter-plus-face_sdxl_vit-h.safetensors": (tiny.SDXL, layouts.plus(WIDTH, 2048, 128, 2), 0),
    "ip-adapter-faceid-portrait_sdxl.bin": (tiny.SDXL, layouts.faceid(2048, 16), 0),
    "ip-adapter-faceid-portrait_sdxl_unnorm.bin": (tiny.SDXL, layouts.plus(512, 2048, 128, 2), 0),
    **{
        f"ip-adapter-{kind}_{family.name.lower().replace('.', '')}.bin": (
            family,
            made(family.context),
            LORA_RANK,
        )
        for kind, made in _FACES.items()
        for family in (tiny.SD15, tiny.SDXL)
        if (kind, family) != ("faceid-plus", tiny.SDXL)
    },
}


def write(folder: Path) -> Path:
    """A models folder."""
    stand_ins.write_models(folder)
    for name, made in ADAPTERS.items():
        stand_ins.write_adapter(folder / "ipadapter" / name, *made)
        if "faceid" in name and "portrait" not in name:
            lora = {"lora_unet_nowhere.lora_down.weight": torch.zeros(4, 4)}
            save_file(lora, folder / "loras" / name.replace(".bin", "_lora.safetensors"))
    write_outline(folder / "clip_vision" / BIGG_FILE, encoder(*VIT_G))
    return folder


def use(folder: Path, monkeypatch: Any) -> None:
    """Make them the host's; of a bigG, as of ViT-H, its loader gives one as wide and otherwise small."""
    stand_ins.use_models(folder, monkeypatch)
    others, made = comfy.clip_vision.load, {}

    def load(path: str, *rest: Any) -> Any:
        if Path(path).name != BIGG_FILE:
            return others(path, *rest)
        if not made:
            made[path] = tiny.clip_vision(VIT_G[1], layers=2, projection=VIT_G[2])
        return made[path]

    monkeypatch.setattr(comfy.clip_vision, "load", load)
