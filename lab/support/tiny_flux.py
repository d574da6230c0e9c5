"""Small random Flux and Chroma models of the host, and adapters for them in the layouts of XLabs and InstantX."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import torch
from torch import Tensor

from . import transformer_layouts as layouts
from .layouts import Table
from .tiny import CPU

HEADS, DIM = 2, 16
WIDTH, CONTEXT, POOLED = HEADS * DIM, 24, 12
RELEASED = 19, 38
CHANNELS = 16

_COMMON = {
    "context_in_dim": CONTEXT,
    "hidden_size": WIDTH,
    "mlp_ratio": 4.0,
    "num_heads": HEADS,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
}
FLUX = {**_COMMON, "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED}
CHROMA = {
    **_COMMON,
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": WIDTH,
    "hidden_dim": 48,
    "n_layers": 2,
}


def flux_config(double: int = 2, single: int = 2) -> dict[str, Any]:
    return {**FLUX, "depth": double, "depth_single_blocks": single, "guidance_embed": True}


def chroma_config() -> dict[str, Any]:
    """The host writes down Chroma's modulations for this many blocks."""
    return {**CHROMA, "depth": RELEASED[0], "depth_single_blocks": RELEASED[1]}


def lively_(tensors: dict[str, Tensor], seed: int = 0, gain: float = 0.15) -> dict[str, Tensor]:
    """Fill, with scales around 1 and biases that are not 0."""
    device = next(iter(tensors.values())).device
    generator = torch.Generator(device).manual_seed(seed)
    for key, tensor in sorted(tensors.items()):
        one = tensor.ndim == 1 and ("norm" in key and not key.endswith("bias"))
        noise = torch.randn(tensor.shape, generator=generator, device=device)
        tensor.copy_(noise * gain + (1.0 if one else 0.0))
    return tensors


def host_model(
    config: dict[str, Any],
    state_dict: dict[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    gain: float = 0.15,
) -> Any:
    """A ModelPatcher over a Flux or Chroma: random, or with these weights under the host's names."""
    chroma = config["image_model"] == "chroma"
    if chroma:
        import comfy.ldm.chroma.model as module

        params, name = module.ChromaParams, "Chroma"
    else:
        import comfy.ldm.flux.model as module

        params, name = module.FluxParams, "Flux"
    asked = {field.name for field in dataclasses.fields(params)}
    config = {**{key: value for key, value in _NEWER.items() if key in asked}, **config}
    supported: Any = getattr(comfy.supported_models, name)(dict(config))
    supported.unet_config["dtype"] = dtype
    supported.custom_operations = None
    model = getattr(comfy.model_base, name)(supported, device=device)
    network = model.diffusion_model
    with torch.no_grad():
        if state_dict is None:
            lively_(network.state_dict(), seed, gain)
        else:
            network.load_state_dict(_named_for(network, state_dict))
    model.requires_grad_(False).eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=CPU)


def _named_for(network: torch.nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norms of q and k have a `scale`, in hosts of 2026 a `weight`."""
    known = network.state_dict()
    return {
        key if key in known else f"{key.removesuffix('scale')}weight": tensor
        for key, tensor in weights.items()
    }


_NEWER = {"txt_ids_dims": [], "vec_in_dim": POOLED}  # that newer hosts ask for


def xlabs(pairs: int = 2, feature: int = 48, tokens: int = 4, seed: int = 7) -> dict[str, Tensor]:
    """The released flat layout."""
    return _filled(layouts.xlabs(pairs, WIDTH, CONTEXT, feature, tokens), seed)


def instantx(
    pairs: int = 4, feature: int = 48, tokens: int = 4, seed: int = 7
) -> dict[str, dict[str, Tensor]]:
    """The released nested layout."""
    flat = _filled(layouts.instantx(pairs, WIDTH, CONTEXT, feature, tokens), seed)
    roles: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in flat.items():
        role, name = key.split(".", 1)
        roles[role][name] = tensor
    return roles


def _filled(table: Table, seed: int) -> dict[str, Tensor]:
    return lively_({key: torch.empty(shape) for key, shape in table.items()}, seed, gain=0.3)


def prompts(pooled: int = POOLED) -> tuple[list, list]:
    """(positive, negative) conditioning as the host's text nodes give it."""
    pair = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        more = {"pooled_output": torch.randn(1, pooled, generator=generator), "guidance": 3.5}
        pair.append([[torch.randn(1, 7, CONTEXT, generator=generator), more]])
    return pair[0], pair[1]


def sample(
    model: Any,
    steps: int = 3,
    cfg: float = 3.0,
    pictures: int = 1,
    size: tuple[int, int] = (8, 12),
    refs: Tensor | None = None,
) -> Tensor:
    """Latents (pictures, 16, h, w) from the host's KSampler code. refs: reference latents, as of Kontext."""
    positive, negative = prompts()
    if refs is not None:
        for _, more in (*positive, *negative):
            more["reference_latents"] = [refs]
    noise = torch.randn(pictures, CHANNELS, *size, generator=torch.Generator().manual_seed(9))
    latent = torch.zeros_like(noise)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", positive, negative, latent, disable_pbar=True, seed=1
        )
