"""The authors' code as published: PyPI package `ip-adapter`, a snapshot of github.com/tencent-ailab/IP-Adapter."""

from __future__ import annotations

from collections.abc import Mapping

import diffusers.pipelines.controlnet as controlnet
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from torch import Tensor, nn

# the package dates from 2023 and imports this class from where it was then
controlnet.MultiControlNetModel = MultiControlNetModel

from ip_adapter.attention_processor import AttnProcessor2_0 as NoImageProcessor  # noqa: E402
from ip_adapter.attention_processor import IPAttnProcessor2_0  # noqa: E402
from ip_adapter.attention_processor_faceid import LoRAAttnProcessor, LoRAIPAttnProcessor  # noqa: E402
from ip_adapter.ip_adapter import ImageProjModel, MLPProjModel  # noqa: E402
from ip_adapter.ip_adapter_faceid import MLPProjModel as FaceIDModel  # noqa: E402
from ip_adapter.resampler import Resampler  # noqa: E402


def projection(
    kind: str, feature: int, context: int, width: int = 768, heads: int = 12, device: str = "cpu"
) -> nn.Module:
    """The published network from encoder features to image tokens, sized as IPAdapter.init_proj does."""
    with torch.device(device):
        if kind == "base":
            return ImageProjModel(context, feature, clip_extra_context_tokens=4).eval()
        if kind == "full":
            return MLPProjModel(context, feature).eval()
        if kind == "faceid":
            return FaceIDModel(context, feature, num_tokens=width).eval()
        return Resampler(
            dim=width,
            depth=4,
            dim_head=64,
            heads=heads,
            num_queries=16,
            embedding_dim=feature,
            output_dim=context,
            ff_mult=4,
        ).eval()


def processors(
    unet: nn.Module,
    weights: Mapping[str, Tensor],
    scale: float,
    tokens: int,
    lora_rank: int = 0,
    lora_scale: float = 1.0,
) -> dict:
    """The published attention processors for a diffusers UNet, with an adapter's weights by its file's numbers.

    lora_rank: of the LoRA among the weights, 0 for none.
    """
    found = {}
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        width, context = attention.to_k.weight.shape
        lora = {"rank": lora_rank, "lora_scale": lora_scale} if lora_rank else {}
        if name.endswith("attn2.processor"):
            kind = LoRAIPAttnProcessor if lora else IPAttnProcessor2_0
            found[name] = kind(width, context, scale=scale, num_tokens=tokens, **lora)
        else:
            found[name] = LoRAAttnProcessor(width, **lora) if lora else AttnProcessor2_0()
    numbered = nn.ModuleList(p if isinstance(p, nn.Module) else nn.Identity() for p in found.values())
    numbered.load_state_dict(dict(weights))  # strict, as IPAdapter.load_ip_adapter
    return found


def trainer_processors(unet: nn.Module, face: bool) -> dict:
    """Fresh ones for every attention of a diffusers UNet, as the published trainers make them, FaceID's with a LoRA."""
    found = {}
    for name in unet.attn_processors:
        width, context = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
        cross = name.endswith("attn2.processor")
        if face:
            kind = LoRAIPAttnProcessor(width, context, rank=4) if cross else LoRAAttnProcessor(width, rank=4)
        else:
            kind = IPAttnProcessor2_0(width, context) if cross else NoImageProcessor()
        found[name] = kind
    return found
