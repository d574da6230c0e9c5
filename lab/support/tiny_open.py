"""Small random Qwen-Image and Z-Image models of the host, and adapters for them in this pack's own layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import torch
from image_prompt.ipadapter_core.families.family import Architecture
from image_prompt.ipadapter_core.families.lumina import NEXT_DIT
from image_prompt.ipadapter_core.families.qwen import QWEN
from torch import Tensor

from . import transformer_layouts as layouts
from .tiny import CPU
from .tiny_flux import CHANNELS, lively_

HEADS, DIM, BLOCKS = 2, 16, 2
WIDTH, CONTEXT, TOKEN = HEADS * DIM, 24, 20  # TOKEN: width of an adapter's tokens
PADDED = 8  # Z-Image fills text and picture up to a multiple of this
Roles = dict[str, dict[str, Tensor]]

QWEN_IMAGE = {
    "image_model": "qwen_image",
    "patch_size": 2,
    "in_channels": 4 * CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": BLOCKS,
    "attention_head_dim": DIM,
    "num_attention_heads": HEADS,
    "joint_attention_dim": CONTEXT,
    "axes_dims_rope": (4, 6, 6),
}
Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": CHANNELS,
    "dim": WIDTH,
    "n_layers": BLOCKS,
    "n_refiner_layers": 1,
    "n_heads": HEADS,
    "n_kv_heads": HEADS,
    "multiple_of": 8,
    "ffn_dim_multiplier": 2.0,
    "qk_norm": True,
    "cap_feat_dim": CONTEXT,
    "axes_dims": [4, 6, 6],
    "axes_lens": [64, 64, 64],
    "rope_theta": 256.0,
    "z_image_modulation": False,  # its own modulation needs a width of 256
    "time_scale": 1000.0,
    "pad_tokens_multiple": PADDED,
}


def _patcher(kind: str, config: dict[str, Any], seed: int) -> Any:
    supported: Any = getattr(comfy.supported_models, kind)(dict(config))
    supported.unet_config["dtype"] = torch.float32
    supported.custom_operations = None
    model = getattr(comfy.model_base, kind)(supported, device=CPU)
    network = model.diffusion_model
    with torch.no_grad():
        network.load_state_dict(lively_({k: v.clone() for k, v in network.state_dict().items()}, seed))
    model.requires_grad_(False).eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def qwen_image(seed: int = 0) -> Any:
    return _patcher("QwenImage", QWEN_IMAGE, seed)


def numbers_blocks() -> bool:
    """Whether this host says which block of Lumina 2 and Z-Image runs."""
    import comfy.ldm.lumina.model as lumina

    return "block_index" in inspect.getsource(lumina.NextDiT)


def z_image(seed: int = 0) -> Any:
    import comfy.ldm.lumina.model as lumina

    asked = inspect.signature(lumina.NextDiT.__init__).parameters
    return _patcher("Lumina2", {key: value for key, value in Z_IMAGE.items() if key in asked}, seed)


@dataclass(frozen=True)
class Kind:
    """One family. pictures: shape of a latent of (h, w)."""

    architecture: Architecture
    make: Callable[..., Any]
    frames: tuple[int, ...]

    def latent(self, pictures: int, size: tuple[int, int]) -> tuple[int, ...]:
        return pictures, CHANNELS, *self.frames, *size


KINDS = {"qwen": Kind(QWEN, qwen_image, (1,)), "z-image": Kind(NEXT_DIT, z_image, ())}


def adapter(architecture: Architecture, seed: int = 7) -> Roles:
    """A base adapter with four tokens."""
    table = layouts.open_blocks(architecture.file_prefix, BLOCKS, WIDTH, TOKEN, 48)
    tensors = lively_({key: torch.empty(shape) for key, shape in table.items()}, seed, gain=0.3)
    roles: Roles = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        role, name = key.split(".", 1)
        roles[role][name] = tensor
    return roles


def prompts() -> tuple[list, list]:
    """(positive, negative) conditioning as the host's text nodes give it."""
    pair = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, 7, CONTEXT, generator=generator)
        pair.append([[text, {"attention_mask": torch.ones(1, 7, dtype=torch.int64)}]])
    return pair[0], pair[1]


def sample(
    model: Any, cfg: float = 3.0, pictures: int = 1, size: tuple[int, int] = (8, 12), *, kind: Kind
) -> Tensor:
    """Latents from three steps of the host's KSampler code."""
    positive, negative = prompts()
    noise = torch.randn(kind.latent(pictures, size), generator=torch.Generator().manual_seed(9))
    latent = torch.zeros_like(noise)
    settings = (3, cfg, "euler", "simple", positive, negative, latent)
    return comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=9)
