"""Full-size model files with random weights in the public layouts, so that the host's own loaders read them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import comfy.ops
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file
from support import tiny
from torch import Tensor

_UNET = tiny.SD15.unet | {"model_channels": 320}
_VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def _config(module: Any, name: str) -> dict[str, Any]:
    return json.loads((Path(module.__file__).parent / name).read_text())


def _save(parts: dict[str, torch.nn.Module], path: Path) -> None:
    """Modules on the meta device -> one fp16 file; each tensor is made and dropped in turn."""
    generator = torch.Generator().manual_seed(1)
    tensors = {
        prefix + key: _values(key, tensor, generator)
        for prefix, module in parts.items()
        for key, tensor in module.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))


def _values(key: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return torch.arange(tensor.numel()).reshape(tensor.shape)
    if tensor.ndim < 2:
        return torch.full(tensor.shape, 0.0 if key.endswith("bias") else 1.0, dtype=torch.float16)
    values = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    return (values / math.sqrt(math.prod(tensor.shape[1:]))).half()


def write_checkpoint(path: Path) -> None:
    """An SD1.5 checkpoint, 2.1 GB."""
    place = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    text = _config(comfy.clip_model, "sd1_clip_config.json")
    parts = {
        "model.diffusion_model.": UNetModel(**_UNET, **place),
        "first_stage_model.": AutoencoderKL(ddconfig=_VAE, embed_dim=4).to("meta"),
        "cond_stage_model.transformer.": comfy.clip_model.CLIPTextModel(
            text, torch.float32, "meta", comfy.ops.disable_weight_init
        ),
    }
    _save(parts, path)


def write_clip_vision(path: Path) -> None:
    """ViT-H/14, 1.3 GB."""
    config = _config(comfy.clip_vision, "clip_vision_config_h.json")
    model = comfy.clip_model.CLIPVisionModelProjection(
        config, torch.float32, "meta", comfy.ops.disable_weight_init
    )
    _save({"": model}, path)


def write_adapter(path: Path) -> None:
    """ip-adapter_sd15, base layout for ViT-H, 45 MB."""
    widths = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
    kv = {f"{2 * n + 1}.to_{w}_ip.weight": torch.zeros(c, 768) for n, c in enumerate(widths) for w in "kv"}
    adapter = {"image_proj": tiny.image_proj("base", 1024, 768), "ip_adapter": kv}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.half() for key, tensor in tiny.random_(tiny.flat(adapter)).items()}, str(path))
