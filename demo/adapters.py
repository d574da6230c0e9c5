"""IP-Adapter weights for the toy base: first values, attaching to the UNet, and the released key layout."""

from torch import nn

from .config import ADAPTER, CLIP_VISION, UNET
from .layouts import Weights
from .networks import UNet2DConditionModel


def initial(unet: UNet2DConditionModel) -> Weights:
    """An untrained adapter in the released layout; K'/V' start as the base's K/V."""
    weights = {f"image_proj.{k}": v for k, v in _new_projection().items()}
    base = unet.state_dict()
    for number, name in _sites(unet):
        for role in ("k", "v"):
            weights[f"ip_adapter.{number}.to_{role}_ip.weight"] = base[f"{name}.to_{role}.weight"].clone()
    return weights


def attach(unet: UNet2DConditionModel, weights: Weights) -> nn.ModuleList:
    """Give the UNet the adapter; returns its modules (projection, processors)."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    for key, value in weights.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    unet._load_ip_adapter_weights(parts, low_cpu_mem_usage=False)
    processors = [p for p in unet.attn_processors.values() if isinstance(p, nn.Module)]
    return nn.ModuleList([unet.encoder_hid_proj, *processors])


def export(unet: UNet2DConditionModel) -> Weights:
    """The attached adapter in the released layout."""
    projection = unet.encoder_hid_proj.image_projection_layers[0].state_dict()
    weights = {f"image_proj.{k.replace('image_embeds', 'proj')}": v for k, v in projection.items()}
    for number, name in _sites(unet):
        processor = unet.attn_processors[f"{name}.processor"]
        weights[f"ip_adapter.{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        weights[f"ip_adapter.{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    return weights


def _sites(unet: UNet2DConditionModel) -> list[tuple[int, str]]:
    """(released number, attention module) of each cross-attention, in the released order."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [(i, name) for i, name in enumerate(names) if name.endswith("attn2")]


def _new_projection() -> Weights:
    proj = nn.Linear(CLIP_VISION.projection, ADAPTER.tokens * UNET.context)
    norm = nn.LayerNorm(UNET.context)
    return nn.ModuleDict({"proj": proj, "norm": norm}).state_dict()
