"""The trained toy world as ComfyUI's own objects: MODEL, VAE, CLIP_VISION, CONTROL_NET, CONDITIONING.

The host must be importable, CPU only: call `bootstrap.start_host()` first where ComfyUI does not run already.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import storage
from .config import CLIP_VISION, LINEAR_END, LINEAR_START, UNET, WEIGHTS
from .tae import complete
from .text import TextEncoder, tokenize

ADAPTER_PATH = WEIGHTS / "ip-adapter_toy.safetensors"
STEPS, CFG, SAMPLER, SCHEDULER = 20, 3.0, "euler", "normal"
LATENT_SIZE = UNET.latent_size

Conditioning = list[list[Any]]


def load_model(folder: Path = WEIGHTS) -> Any:
    """The base as a MODEL (the host's ModelPatcher), fp32 on the CPU."""
    from comfy import model_patcher, supported_models

    config: Any = supported_models.SD15(UNET.host())
    config.unet_config["dtype"] = torch.float32
    config.sampling_settings = {"linear_start": LINEAR_START, "linear_end": LINEAR_END}
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(_widened(weights("base.safetensors", folder)))
    return model_patcher.ModelPatcher(model.eval(), load_device=_cpu(), offload_device=_cpu())


def load_vae(folder: Path = WEIGHTS) -> Any:
    """The VAE (TAESD layout, factor 8)."""
    from comfy import sd

    return sd.VAE(sd=complete(weights("vae.safetensors", folder)), device=_cpu(), dtype=torch.float32)


def load_clip_vision(folder: Path = WEIGHTS) -> Any:
    """The CLIP_VISION; its host class reads the configuration from a file."""
    from comfy import clip_vision

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "clip_vision.json"
        path.write_text(json.dumps(CLIP_VISION.as_dict()))
        encoder = clip_vision.ClipVisionModel(str(path))
    missing, unexpected = encoder.load_sd(weights("clip_vision.safetensors", folder))
    if missing or unexpected:
        raise ValueError(f"toy image encoder: missing {missing}, unexpected {unexpected}")
    return encoder


def load_controlnet(folder: Path = WEIGHTS) -> Any:
    """The CONTROL_NET; its hint is a white shape on black, 96x96 a picture."""
    from comfy import controlnet
    from comfy.cldm import cldm

    network = cldm.ControlNet(**UNET.host(), hint_channels=3, dtype=torch.float32, device=_cpu())
    # untrained parts are the base's
    known = _widened(weights("base.safetensors", folder) | weights("controlnet.safetensors", folder))
    network.load_state_dict({key: known[key] for key in network.state_dict()})
    return controlnet.ControlNet(network.eval(), load_device=_cpu())


def load_text(folder: Path = WEIGHTS) -> TextEncoder:
    """The table of words."""
    table = TextEncoder()
    table.load_state_dict(weights("text.safetensors", folder))
    return table.requires_grad_(False)


def encode_text(caption: str, folder: Path = WEIGHTS) -> Conditioning:
    """'red heart on striped pale blue', any part of it or '' -> CONDITIONING with context (1, 5, 768)."""
    return [[as_context(load_text(folder)(tokenize(caption)[None])), {}]]


def as_context(words: Tensor) -> Tensor:
    """Vectors of words (n, 5, 64) -> context (n, 5, 768), the width that SD1.5 is recognised by."""
    return F.pad(words, (0, UNET.context - UNET.words))


def weights(name: str, folder: Path = WEIGHTS) -> storage.Weights:
    """Of one of the toy world's files, fp32."""
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train it with `python -m lab.toy`")
    return storage.load(path)


def _widened(known: storage.Weights) -> storage.Weights:
    """With K and V of the cross-attentions over the whole width of the context, zeros where the file stops."""
    cross = (".attn2.to_k.weight", ".attn2.to_v.weight")
    return {key: as_context(value) if key.endswith(cross) else value for key, value in known.items()}


def _cpu() -> torch.device:
    return torch.device("cpu")
