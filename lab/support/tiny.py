"""Small random models of the real layouts: UNets of SD1.5 and SDXL as host models, CLIP vision, adapters."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from image_prompt.ipadapter_core.families.table import model_sites
from support import layouts
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Family:
    """A UNet family in small: the host's config (`unet`) and what follows from it."""

    name: str
    unet: dict[str, Any]
    sites: int
    adm: int  # width of the pooled conditioning, 0 for none

    @property
    def context(self) -> int:
        return self.unet["context_dim"]


_COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
}
SD15 = Family(
    "SD1.5",
    _COMMON
    | {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
        "num_heads": 8,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
        "context_dim": 768,
        "adm_in_channels": None,
    },
    sites=16,
    adm=0,
)
SDXL = Family(
    "SDXL",
    _COMMON
    | {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "num_heads": -1,
        "num_head_channels": 32,
        "use_linear_in_transformer": True,
        "context_dim": 2048,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
    sites=70,
    adm=2816,
)


def _pruned(name: str, sites: int, **unet: Any) -> Family:
    return Family(name, SDXL.unet | unet, sites, adm=2816)


# SDXL with fewer attention layers, as the host's model_detection lists them
SSD1B = _pruned(
    "SSD-1B",
    34,
    transformer_depth=[0, 0, 2, 2, 4, 4],
    transformer_depth_output=[0, 0, 0, 1, 1, 2, 10, 4, 4],
    transformer_depth_middle=-1,
)
VEGA = _pruned(
    "Segmind Vega",
    15,
    transformer_depth=[0, 0, 1, 1, 2, 2],
    transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    transformer_depth_middle=-1,
)
KOALA = _pruned(
    "KOALA-700M",
    21,
    num_res_blocks=[1, 1, 1],
    transformer_depth=[0, 2, 5],
    transformer_depth_output=[0, 0, 2, 2, 5, 5],
    transformer_depth_middle=-2,
)
FAMILIES = {family.name: family for family in (SD15, SDXL, SSD1B, VEGA, KOALA)}


def random_(tensors: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Fill with values of unit gain, so that activations neither vanish nor explode. All are on one device."""
    device = next(iter(tensors.values())).device
    generator = torch.Generator(device).manual_seed(seed)
    for key, tensor in tensors.items():
        if tensor.ndim < 2:
            tensor.fill_(0.0 if key.endswith("bias") else 1.0)
        else:
            fan = math.prod(tensor.shape[1:])
            tensor.copy_(torch.randn(tensor.shape, generator=generator, device=device) / math.sqrt(fan))
    return tensors


def host_model(
    family: Family,
    state_dict: dict[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A ModelPatcher over a UNet of this family: random, or with a UNet state dict in the host's layout."""
    base = comfy.supported_models.SDXL if family.adm else comfy.supported_models.SD15
    config: Any = base(dict(family.unet))
    config.unet_config.update(family.unet)
    config.unet_config["dtype"] = dtype
    # EPS prediction for both; the host's SDXL class would look for v-prediction keys in the file
    make = comfy.model_base.SDXL if family.adm else comfy.model_base.BaseModel
    model = make(config, model_type=comfy.model_base.ModelType.EPS, device=device)
    unet = model.diffusion_model
    if state_dict is None:
        random_(unet.state_dict(), seed)
    else:
        unet.load_state_dict(state_dict)
    model.requires_grad_(False).eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=CPU)


def conditioning(
    family: Family, seed: int = 1, batch: int = 1, tokens: int = 7
) -> tuple[Tensor, dict[str, Tensor]]:
    """(context, extra) as a text encoder would give: context (batch, tokens, width) and, for SDXL, y."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, tokens, family.context, generator=generator)
    y = {"y": torch.randn(batch, family.adm, generator=generator)} if family.adm else {}
    return context, y


def run_unet(
    model: Any,
    family: Family,
    chunks: tuple[int, ...] = (1, 0),
    pictures: int = 1,
    size: tuple[int, int] = (16, 16),
    sigma: float = 1.0,
) -> Tensor:
    """One forward of the patched UNet as the sampler does it: chunks of `pictures`, (B, 4, h, w)."""
    generator = torch.Generator().manual_seed(3)
    x = (
        torch.randn(1, pictures, 4, *size, generator=generator)
        .expand(len(chunks), -1, -1, -1, -1)
        .flatten(0, 1)
    )
    parts = [conditioning(family, seed=10 + chunk, batch=1) for chunk in chunks]
    context = torch.cat([c.expand(pictures, -1, -1) for c, _ in parts])
    extra = {"y": torch.cat([e["y"].expand(pictures, -1) for _, e in parts])} if family.adm else {}
    told = {"cond_or_uncond": list(chunks), "sigmas": torch.full((pictures,), sigma)}
    return call_unet(model, x, torch.full((x.shape[0],), 500.0), context, told, **extra)


def call_unet(
    model: Any, x: Tensor, times: Tensor, context: Tensor, told: dict[str, Any], **extra: Tensor
) -> Tensor:
    """One forward of the patched UNet, through the model's wrappers where the host has them, as apply_model does.

    told: what the host's sampler says of a call in transformer_options.
    """
    options = {**model.model_options["transformer_options"], **told}
    base, unet = model.model, model.get_model_object("diffusion_model")

    def forward(x: Tensor, t: Tensor, concat: None, text: Tensor, control: None, options: Any, **more: Any):
        return base.diffusion_model(x, t, context=text, transformer_options=options, **more)

    own, base.diffusion_model = base.diffusion_model, unet
    try:
        with torch.inference_mode():
            run = _wrapped(model, forward) or forward
            return run(x, times, None, context, None, options, **extra)
    finally:
        base.diffusion_model = own


def _wrapped(model: Any, forward: Callable[..., Tensor]) -> Callable[..., Tensor] | None:
    """forward within the wrappers that stand on the model; None on hosts before wrappers."""
    if not hasattr(model, "wrappers"):
        return None
    from comfy.patcher_extension import WrapperExecutor, WrappersMP

    found = [w for each in model.wrappers.get(WrappersMP.APPLY_MODEL, {}).values() for w in each]
    return WrapperExecutor.new_class_executor(forward, model.model, found).execute


def clip_vision(
    width: int = 64, layers: int = 3, projection: int = 48, seed: int = 5, *, size: int = 32, patch: int = 8
) -> Any:
    """A small random CLIP vision encoder as the host's ClipVisionModel, by default 32x32 in patches of 8: 17 tokens."""
    config = {
        "hidden_size": width,
        "image_size": size,
        "patch_size": patch,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "intermediate_size": width * 2,
        "num_channels": 3,
        "hidden_act": "gelu",
        "projection_dim": projection,
        "model_type": "clip_vision_model",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        encoder = comfy.clip_vision.ClipVisionModel(str(path))
    encoder.load_sd(
        random_({k: v.float().clone() for k, v in encoder.get_sd().items() if v.is_floating_point()}, seed)
    )
    encoder.model.requires_grad_(False)
    return encoder


def site_widths(family: Family) -> tuple[int, ...]:
    """Inner widths of the small UNet's sites in checkpoint order."""
    return _widths(family.name)


def _widths(name: str, _seen: dict[str, tuple[int, ...]] = {}) -> tuple[int, ...]:  # noqa: B006
    if name not in _seen:
        model = host_model(FAMILIES[name]).get_model_object("diffusion_model")
        _seen[name] = tuple(site.width for site in model_sites(model))
    return _seen[name]


def image_proj(
    kind: str, feature: int, context: int, tokens: int = 16, width: int = 128
) -> dict[str, Tensor]:
    """An empty image_proj of a released layout, small where the layout allows."""
    tables: dict[str, Callable[[], layouts.Table]] = {
        "base": lambda: layouts.base(feature, context),
        "full": lambda: layouts.full(feature, context),
        "plus": lambda: layouts.plus(feature, context, width, width // 64, tokens),
        "faceid": lambda: layouts.faceid(context),
        "faceid portrait": lambda: layouts.faceid(context, 16),
        "faceid plus": lambda: layouts.faceid_plus(feature, context, heads=2, hidden=width),
        "faceid plus v2": lambda: layouts.faceid_plus(feature, context, heads=2, hidden=width),
        # tokens of the width of Kolors' text encoder
        "faceid kolors": lambda: layouts.faceid_plus(feature, 4096, 6, heads=2, hidden=width),
        "faceid portrait unnorm": lambda: layouts.plus(512, context, width, width // 64, tokens),
    }
    return {key.removeprefix("image_proj."): torch.zeros(shape) for key, shape in tables[kind]().items()}


def adapter_tensors(
    kind: str, family: Family, seed: int = 7, lora_rank: int = 0
) -> dict[str, dict[str, Tensor]]:
    """A random adapter in the nested release layout, for `clip_vision()` and this family's small UNet."""
    proj = image_proj(kind, 48 if kind == "base" else 64, family.context)
    widths = site_widths(family)
    table = layouts.keys_values(widths, family.context)
    if lora_rank:
        table |= layouts.lora(widths, family.context, lora_rank)
    kv = {key.removeprefix("ip_adapter."): torch.zeros(shape) for key, shape in table.items()}
    return {"image_proj": random_(proj, seed), "ip_adapter": random_(kv, seed + 1)}


def flat(tensors: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The flat .safetensors layout of the same adapter."""
    return {f"{role}.{key}": tensor for role, items in tensors.items() for key, tensor in items.items()}


def picture(seed: int = 0, height: int = 32, width: int = 32, count: int = 1) -> Tensor:
    """Smooth random pictures (count, height, width, 3) in 0..1, exact in 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().movedim(1, -1) / 255
