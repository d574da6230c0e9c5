"""The other side of SD3.5's parity tests: diffusers' transformer and its IP-Adapter, with the weights of the host's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.utils
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0 as _Processor
from torch import Tensor

from . import tiny, tiny_flux, tiny_sd3
from .tiny_sd3 import CONTEXT, DIM, HEADS, POOLED, SIDE, WIDTH

SIGMA = 0.7


@dataclass(frozen=True)
class Batch:
    """One call of the model. chunks: role of each block of `pictures` rows."""

    x: Tensor
    time: Tensor  # timesteps of the network, 1000 · sigma
    context: Tensor
    pooled: Tensor
    chunks: tuple[int, ...] = (0,)


def make_batch(
    chunks: tuple[int, ...] = (0,), pictures: int = 1, size: tuple[int, int] = (8, 12), seed: int = 3
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = len(chunks) * pictures
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    times = torch.full((rows,), 1000 * SIGMA)
    return Batch(randn(rows, 16, *size), times, randn(rows, 7, CONTEXT), randn(rows, POOLED), chunks)


class Twin:
    """A diffusers transformer with random weights, and the host's model with the same."""

    def __init__(self, blocks: int = 2):
        self.network: Any = SD3Transformer2DModel(
            sample_size=2 * SIDE,
            patch_size=2,
            in_channels=16,
            num_layers=blocks,
            attention_head_dim=DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=CONTEXT,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=POOLED,
            out_channels=16,
            pos_embed_max_size=SIDE,
            qk_norm="rms_norm",
        )
        self.network.requires_grad_(False).eval()
        weights = self.network.state_dict()
        tiny_flux.lively_(weights, 21, gain=0.1 if blocks < 10 else 0.05)
        self.model = tiny_sd3.host_model(blocks)
        copy_weights(weights, self.model.model.diffusion_model, blocks)

    def host(self, model: Any, batch: Batch) -> Tensor:
        """One forward of the host's model, with what the patched clone carries."""
        dtype = model.model.diffusion_model.dtype
        x, context, pooled = (t.to(dtype) for t in (batch.x, batch.context, batch.pooled))
        said = {"cond_or_uncond": list(batch.chunks), "sigmas": torch.tensor([SIGMA])}
        return tiny.call_unet(model, x, batch.time, context, said, y=pooled)

    @torch.inference_mode()
    def __call__(self, batch: Batch, images: Sequence[Tensor] = ()) -> Tensor:
        """One forward of diffusers'. images: of each the encoder's features (rows, tokens, width); their tokens side by
        side, each image through the resampler by itself."""
        extra: dict[str, Any] = {}
        if images:
            made = [self.network.image_proj(features, batch.time) for features in images]
            tokens = torch.cat([tokens for tokens, _ in made], 1)
            extra["joint_attention_kwargs"] = {"ip_hidden_states": tokens, "temb": made[0][1]}
        return self.network(
            hidden_states=batch.x,
            encoder_hidden_states=batch.context,
            pooled_projections=batch.pooled,
            timestep=batch.time,
            return_dict=False,
            **extra,
        )[0]

    def load(self, roles: Mapping[str, Mapping[str, Tensor]], scales: float | Sequence[float]) -> Twin:
        """This adapter, with one scale or one for each block."""
        self.network.image_proj = None  # whose own attentions count as the network's
        self.network._load_ip_adapter_weights(dict(roles), low_cpu_mem_usage=False)
        self.scale(scales)
        self.network.requires_grad_(False)
        return self

    def scale(self, scales: float | Sequence[float]) -> None:
        """Of the loaded adapter, as the pipeline's set_ip_adapter_scale sets it."""
        processors = [p for p in self.network.attn_processors.values() if isinstance(p, _Processor)]
        each = scales if isinstance(scales, Sequence) else [scales] * len(processors)
        for processor, scale in zip(processors, each, strict=True):
            processor.scale = scale


def copy_weights(weights: Mapping[str, Tensor], network: Any, blocks: int) -> None:
    """From diffusers' names to the host's, by the host's own table; every tensor of the host must be reached."""
    table: Any = comfy.utils.mmdit_to_diffusers({"depth": HEADS, "num_blocks": blocks}, output_prefix="")
    as_deep: Any = comfy.utils.mmdit_to_diffusers({"depth": blocks}, output_prefix="")
    # the host takes the block of the number of heads for the last, whose scale and shift stand the other way round
    table.update({key: place for key, place in as_deep.items() if "norm1_context" in key})
    ours, reached = network.state_dict(), set()
    for key, tensor in weights.items():
        name, part, change = (
            (table[key], None, None) if isinstance(table[key], str) else (*table[key], None)[:3]
        )
        target = ours[name] if part is None else ours[name].narrow(*part)
        target.copy_((change(tensor) if change else tensor).reshape(target.shape))
        reached.add(name)
    assert reached == set(ours), set(ours) - reached
    network.load_state_dict(ours)
