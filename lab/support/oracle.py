"""The other side of the parity tests: diffusers' UNet and IP-Adapter, transformers' CLIP vision, same weights as ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.utils
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.ip_adapter import IPAdapterMixin
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

Adapter = Mapping[str, Mapping[str, Tensor]]  # {"image_proj": ..., "ip_adapter": ...}
COND = 0


def lively_(tensors: Mapping[str, Tensor], seed: int) -> None:
    """Fill with unit gain, and norms and biases that are not trivial, so that a swapped or lost one shows."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim < 2:
            tensor.copy_(noise * 0.1 + (0.0 if key.endswith("bias") else 1.0))
        else:
            tensor.copy_(noise / math.sqrt(math.prod(tensor.shape[1:])))


def unet_config(host_unet: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' UNet2DConditionModel config of a host UNet config with two residual blocks a level."""
    widths = tuple(host_unet["model_channels"] * factor for factor in host_unet["channel_mult"])
    depths = host_unet["transformer_depth"][::2]
    down = tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths)
    up = tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths))
    per_head = host_unet["num_head_channels"]
    config = {
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": widths,
        "layers_per_block": 2,
        "transformer_layers_per_block": tuple(max(depth, 1) for depth in depths),
        "cross_attention_dim": host_unet["context_dim"],
        # in diffusers this is the number of heads
        "attention_head_dim": 8 if per_head < 0 else tuple(width // per_head for width in widths),
        "use_linear_projection": host_unet["use_linear_in_transformer"],
    }
    if host_unet["transformer_depth_middle"] < 0:
        # pruned: one residual block in the middle, and depths on the way up that mirror nothing
        ups = host_unet["transformer_depth_output"][::-1]
        levels = [[max(depth, 1) for depth in ups[n : n + 3]] for n in range(0, len(ups), 3)]
        config |= {"mid_block_type": "UNetMidBlock2D", "reverse_transformer_layers_per_block": levels}
    if host_unet["adm_in_channels"]:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": host_unet["adm_in_channels"],
        }
    return config


def build_unet(host_unet: Mapping[str, Any], device: str = "meta") -> UNet2DConditionModel:
    """The diffusers UNet without values; on 'meta' without memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(host_unet))
    return unet.requires_grad_(False).eval() if device == "meta" else unet.to_empty(device=device).eval()


def adapter_sites(unet: UNet2DConditionModel) -> dict[str, int]:
    """Cross-attentions by name in diffusers' own order, with the key number that an adapter file gives each."""
    names = list(unet.attn_processors)
    return {name: number for number, name in enumerate(names) if name.endswith("attn2.processor")}


class Oracle:
    """diffusers' UNet with random weights; adapters come and go."""

    def __init__(self, host_unet: Mapping[str, Any], seed: int = 21):
        self.host_unet = host_unet
        self.unet = build_unet(host_unet, "cpu").requires_grad_(False)
        lively_(self.unet.state_dict(), seed)
        self._ready: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def host_state_dict(self) -> dict[str, Tensor]:
        """The same weights under the host's names, by the host's own table."""
        names = comfy.utils.unet_to_diffusers(self.host_unet)
        ours = self.unet.state_dict()
        return {names[key]: tensor for key, tensor in ours.items() if ".processor." not in key}

    def load(self, *adapters: Adapter, scale: Any = 1.0) -> Oracle:
        """Exactly these adapters, each at `scale`: a number, or diffusers' per-block dict; a list is one for each."""
        key = tuple(id(adapter) for adapter in adapters)
        self._unload()
        if adapters and key in self._ready:
            _, processors, self.unet.encoder_hid_proj = self._ready[key]
            self._config.encoder_hid_dim_type = "ip_image_proj"
            self.unet.set_attn_processor(dict(processors))
        elif adapters:
            self.unet._load_ip_adapter_weights([dict(a) for a in adapters], low_cpu_mem_usage=True)
            # the adapters are kept too, so that no other can get their ids
            self._ready[key] = adapters, dict(self.unet.attn_processors), self.unet.encoder_hid_proj
        if adapters:
            scales = scale if isinstance(scale, list) else [scale] * len(adapters)
            pipeline: Any = SimpleNamespace(unet=self.unet)
            IPAdapterMixin.set_ip_adapter_scale(pipeline, scales)
        return self

    @property
    def _config(self) -> Any:
        return self.unet.config

    def use(self, processors: Mapping[str, Any]) -> Oracle:
        """Attention processors of another source instead of diffusers' adapters, by name."""
        self._unload()
        self.unet.set_attn_processor(dict(processors))
        return self

    def _unload(self) -> None:
        self.unet.encoder_hid_proj = None
        self._config.encoder_hid_dim_type = None
        self.unet.set_attn_processor(AttnProcessor2_0())

    @property
    def image_attentions(self) -> list[IPAdapterAttnProcessor2_0]:
        """The processors that read image tokens."""
        found = self.unet.attn_processors.values()
        return [processor for processor in found if isinstance(processor, IPAdapterAttnProcessor2_0)]

    def __call__(
        self, batch: Any, embeds: Sequence[Tensor] = (), masks: Sequence[Tensor] | None = None
    ) -> Tensor:
        """One forward. embeds: per adapter (B, images, ...); masks: per adapter (1, images, H, W)."""
        added: dict[str, Any] = {"image_embeds": list(embeds)} if embeds else {}
        if batch.pooled is not None:
            added |= {"text_embeds": batch.pooled, "time_ids": batch.time_ids}
        with torch.inference_mode():
            return self.unet(
                batch.x,
                batch.timestep,
                batch.context,
                added_cond_kwargs=added,
                cross_attention_kwargs={"ip_adapter_masks": list(masks)} if masks else None,
                return_dict=False,
            )[0]


class ReferenceEncoder:
    """transformers' CLIP vision model and image processor with the weights of a host encoder of `tiny`."""

    def __init__(self, host_encoder: Any):
        weights = {key: value.float() for key, value in host_encoder.get_sd().items()}
        width = weights["vision_model.post_layernorm.weight"].shape[0]
        layers = {key.split(".")[3] for key in weights if ".encoder.layers." in key}
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            projection_dim=weights["visual_projection.weight"].shape[0],
            num_hidden_layers=len(layers),
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
            hidden_act="gelu",
        )
        self.model = CLIPVisionModelWithProjection(config).eval()
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not [key for key in missing if "position_ids" not in key]
        assert not [key for key in unexpected if "position_ids" not in key]

    @torch.no_grad()
    def features(self, kind: str, values: Tensor) -> Tensor:
        """What an adapter of this kind reads: (n, projection) for base, else (n, tokens, width)."""
        out = self.model(pixel_values=values, output_hidden_states=True)
        return out.image_embeds if kind == "base" else out.hidden_states[-2]

    def images(self, kind: str, images: Tensor) -> Tensor:
        """Features of pictures (n, H, W, 3) in 0..1 through transformers' own preprocessing."""
        return self.features(kind, processed(images, size=32))

    def nothing(self, kind: str) -> Tensor:
        """'No image' as in training: zero embeddings, or the features of zero pixel values (ip_adapter.py)."""
        zeros = self.features(kind, torch.zeros(1, 3, 32, 32))
        return torch.zeros_like(zeros) if kind == "base" else zeros


def processed(images: Tensor, size: int, **options: Any) -> Tensor:
    """transformers' CLIPImageProcessor on 8-bit pictures, as pipelines feed it: (n, 3, h, w)."""
    processor = CLIPImageProcessor(
        size=options.pop("resize", {"shortest_edge": size}),
        crop_size={"height": size, "width": size},
        **options,
    )
    pictures = [(image * 255).round().to(torch.uint8).numpy() for image in images]
    return processor(pictures, return_tensors="pt")["pixel_values"]


def for_batch(batch: Any, positive: Tensor, negative: Tensor) -> Tensor:
    """Features (n, ...) and 'no image' (1, ...) or (n, ...) laid out as diffusers wants: (B, n, ...), B as the batch."""
    negative = negative.expand_as(positive)
    pictures = batch.x.shape[0] // len(batch.chunks)
    rows = [positive if chunk == COND else negative for chunk in batch.chunks for _ in range(pictures)]
    return torch.stack(rows)
