"""A ComfyUI folder with files of every state, as the doctor finds them."""

from pathlib import Path

import image_prompt
from core.outlines import FACE_LORAS, VIT_G, encoder, face_lora, write_outline
from support.layouts import LAYOUTS

ROOT = Path(image_prompt.__path__[0])
TABLES = {layout.file: layout.table for layout in LAYOUTS}


def comfyui_folder(tmp_path: Path) -> Path:
    """A ComfyUI with this pack, two adapters, a wrong encoder, LoRAs and a broken file."""
    root = tmp_path / "ComfyUI"
    models = root / "models"
    (root / "custom_nodes").mkdir(parents=True)
    (root / "custom_nodes" / "image-prompt").symlink_to(ROOT, target_is_directory=True)
    write_outline(models / "ipadapter" / "sd15" / "a.safetensors", TABLES["ip-adapter-plus_sd15"])
    write_outline(models / "ipadapter" / "g.safetensors", TABLES["ip-adapter_sdxl"])
    write_outline(models / "clip_vision" / "big.safetensors", encoder(*VIT_G))
    write_outline(models / "loras" / "face.safetensors", FACE_LORAS["SD1.5"])
    write_outline(models / "loras" / "other.safetensors", face_lora(rank=8))
    (models / "ipadapter" / "page.safetensors").write_text("<!DOCTYPE html><title>Sign in</title>")
    return root
