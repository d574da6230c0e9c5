"""Small random SD3.5 models of the host, and adapters for them in InstantX's layout."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import torch
from torch import Tensor

from . import transformer_layouts as layouts
from .tiny import CPU
from .tiny_flux import CHANNELS, lively_

HEADS, DIM = 2, 64  # the host and the adapters have heads of 64
WIDTH, CONTEXT, POOLED = HEADS * DIM, 24, 12
SIDE = 16  # of the grid of position embeddings
FEATURE, TOKENS, INNER, WAVES = 48, 4, 64, 32
RELEASED = 38
Roles = dict[str, dict[str, Tensor]]


def config(blocks: int = 2) -> dict[str, Any]:
    """As the host reads it off a checkpoint; its depth is the number of heads."""
    return {
        "input_size": None,
        "patch_size": 2,
        "in_channels": CHANNELS,
        "depth": HEADS,
        "num_blocks": blocks,
        "mlp_ratio": 4.0,
        "adm_in_channels": POOLED,
        "num_patches": SIDE * SIDE,
        "pos_embed_max_size": SIDE,
        "pos_embed_scaling_factor": None,
        "qk_norm": "rms",
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": CONTEXT, "out_features": WIDTH},
        },
    }


def host_model(blocks: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A ModelPatcher over a small random SD3.5."""
    supported: Any = comfy.supported_models.SD3(config(blocks))
    supported.unet_config["dtype"] = dtype
    supported.custom_operations = None
    model = comfy.model_base.SD3(supported, device=CPU)
    network = model.diffusion_model
    with torch.no_grad():
        network.load_state_dict(lively_({k: v.clone() for k, v in network.state_dict().items()}, seed))
        for key, tensor in network.state_dict().items():
            if ".ln_q." in key or ".ln_k." in key:
                tensor.add_(1.0)
    model.requires_grad_(False).eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def instantx(pairs: int = 2, feature: int = FEATURE, seed: int = 7) -> Roles:
    """The released nested layout."""
    table = layouts.instantx_sd3(pairs, WIDTH, feature, TOKENS, INNER, waves=WAVES)
    tensors = lively_({key: torch.empty(shape) for key, shape in table.items()}, seed, gain=0.2)
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
        pooled = {"pooled_output": torch.randn(1, POOLED, generator=generator)}
        pair.append([[torch.randn(1, 7, CONTEXT, generator=generator), pooled]])
    return pair[0], pair[1]


def sample(
    model: Any, steps: int = 3, cfg: float = 3.0, pictures: int = 1, size: tuple[int, int] = (8, 12)
) -> Tensor:
    """Latents (pictures, 16, h, w) from the host's KSampler code."""
    positive, negative = prompts()
    noise = torch.randn(pictures, CHANNELS, *size, generator=torch.Generator().manual_seed(9))
    latent = torch.zeros_like(noise)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", positive, negative, latent, disable_pbar=True, seed=1
        )
