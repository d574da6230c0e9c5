"""Stand-ins for what a user of Flux.1 or SD3.5 has: small models under their public names."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch
from core.outlines import encoder, write_outline
from image_prompt.host import folders
from image_prompt.ipadapter_core.siglip import HEAD
from safetensors.torch import save_file
from support import tiny, tiny_flux, tiny_sd3
from torch import Tensor

XLABS, INSTANTX = "flux-ip-adapter-v2.safetensors", "FLUX.1-dev-IP-Adapter.bin"
SD3 = "SD3.5-Large-IP-Adapter.bin"
CLIP_L, SIGLIP = "clip-vit-large-patch14.safetensors", "siglip-so400m-patch14-384.safetensors"
SIGCLIP = "sigclip_vision_patch14_384.safetensors"
DOUBLE, SINGLE, BLOCKS = 2, 2, 2
_EMBEDS = 768  # width of CLIP ViT-L's projection
_WIDTH, _HIDDEN = 64, 96  # of the small SigLIP


def write_models(folder: Path) -> None:
    """Adapters and encoders into a models folder. What the host makes of an encoder's file is `encoder_named`."""
    save_file(tiny_flux.xlabs(DOUBLE, feature=_EMBEDS), folder / folders.ADAPTERS / XLABS)
    torch.save(tiny_flux.instantx(DOUBLE + SINGLE, feature=_WIDTH), folder / folders.ADAPTERS / INSTANTX)
    torch.save(tiny_sd3.instantx(BLOCKS, feature=_WIDTH), folder / folders.ADAPTERS / SD3)
    write_outline(folder / "clip_vision" / CLIP_L, encoder(24, 1024, _EMBEDS, 257))
    for name in (SIGLIP, SIGCLIP):
        save_file(_siglip_tensors(), folder / "clip_vision" / name)


def encoder_named(name: str) -> Any | None:
    """None for other files."""
    return {CLIP_L: clip_l, SIGLIP: siglip, SIGCLIP: siglip}.get(name, lambda: None)()


@lru_cache(maxsize=1)
def clip_l() -> Any:
    return tiny.clip_vision(projection=_EMBEDS)


@lru_cache(maxsize=1)
def siglip() -> Any:
    """Of hosts that know SigLIP."""
    config = {
        "model_type": "siglip_vision_model",
        "hidden_size": _WIDTH,
        "intermediate_size": _HIDDEN,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_channels": 3,
        "image_size": 56,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "config.json"
        path.write_text(json.dumps(config))
        model = comfy.clip_vision.ClipVisionModel(str(path))
    model.load_sd(_siglip_tensors())
    model.model.requires_grad_(False)
    return model


@lru_cache(maxsize=1)
def _siglip_tensors() -> dict[str, Tensor]:
    """As transformers names them, with the pooling head."""
    square, wide = (_WIDTH, _WIDTH), (_HIDDEN, _WIDTH)
    table: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.patch_embedding.weight": (_WIDTH, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (_WIDTH,),
        "vision_model.embeddings.position_embedding.weight": (16, _WIDTH),
        f"{HEAD}probe": (1, 1, _WIDTH),
        f"{HEAD}attention.in_proj_weight": (3 * _WIDTH, _WIDTH),
        f"{HEAD}attention.in_proj_bias": (3 * _WIDTH,),
    }
    linear = {f"{HEAD}attention.out_proj": square, f"{HEAD}mlp.fc1": wide, f"{HEAD}mlp.fc2": wide[::-1]}
    norms = [f"{HEAD}layernorm", "vision_model.post_layernorm"]
    for n in range(3):
        layer = f"vision_model.encoder.layers.{n}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        linear |= {f"{layer}.self_attn.{part}": square for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
        linear |= {f"{layer}.mlp.fc1": wide, f"{layer}.mlp.fc2": wide[::-1]}
    for name, shape in linear.items():
        table |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        table |= {f"{name}.weight": (_WIDTH,), f"{name}.bias": (_WIDTH,)}
    return tiny_flux.lively_({key: torch.empty(shape) for key, shape in table.items()}, seed=6)
