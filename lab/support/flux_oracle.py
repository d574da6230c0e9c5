"""The other side of Flux's parity tests: diffusers' transformers with the weights of the host's, and InstantX's formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.utils
import torch
import torch.nn.functional as F
from diffusers import ChromaTransformer2DModel, FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import (
    FluxIPAdapterAttnProcessor,
    _get_qkv_projections,
    apply_rotary_emb,
)
from einops import rearrange
from torch import Tensor

from . import tiny, tiny_flux
from .tiny_flux import CONTEXT, DIM, HEADS, POOLED, RELEASED, WIDTH

_AXES = (4, 6, 6)
_COMMON: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "attention_head_dim": DIM,
    "num_attention_heads": HEADS,
    "joint_attention_dim": CONTEXT,
    "axes_dims_rope": _AXES,
}


@dataclass(frozen=True)
class Batch:
    """One call of the model. chunks: role of each block of `pictures` rows."""

    x: Tensor
    time: Tensor
    context: Tensor
    pooled: Tensor
    guidance: Tensor
    chunks: tuple[int, ...] = (0,)


def make_batch(
    chunks: tuple[int, ...] = (0,), pictures: int = 1, size: tuple[int, int] = (8, 12), seed: int = 3
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = len(chunks) * pictures
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    times = torch.full((rows,), 0.7)
    return Batch(
        randn(rows, 16, *size),
        times,
        randn(rows, 7, CONTEXT),
        randn(rows, POOLED),
        torch.full((rows,), 3.5),
        chunks,
    )


class Twin:
    """A diffusers transformer with random weights, and the host's model with the same."""

    def __init__(self, chroma: bool = False, double: int = 2, single: int = 2):
        self.chroma = chroma
        if chroma:
            double, single = RELEASED
        counts: dict[str, Any] = {"num_layers": double, "num_single_layers": single}
        if chroma:
            inner: dict[str, Any] = {
                "approximator_num_channels": 64,
                "approximator_hidden_dim": 48,
                "approximator_layers": 2,
            }
            self.network: Any = ChromaTransformer2DModel(**_COMMON, **counts, **inner)
            config = tiny_flux.chroma_config()
        else:
            self.network = FluxTransformer2DModel(
                **_COMMON, **counts, pooled_projection_dim=POOLED, guidance_embeds=True
            )
            config = tiny_flux.flux_config(double, single)
        self.network.requires_grad_(False).eval()
        floats = {k: v for k, v in self.network.state_dict().items() if v.is_floating_point()}
        tiny_flux.lively_(floats, 21, gain=0.06 if chroma else 0.15)
        self.model = tiny_flux.host_model(config)
        network = self.model.model.diffusion_model
        copy_weights(floats, network, {**config, "hidden_size": WIDTH})

    def host(self, model: Any, batch: Batch) -> Tensor:
        """One forward of the host's model, with what the patched clone carries."""
        extra = {} if self.chroma else {"y": batch.pooled}
        guidance = torch.zeros_like(batch.guidance) if self.chroma else batch.guidance
        said = {"cond_or_uncond": list(batch.chunks), "sigmas": batch.time[:1]}
        return tiny.call_unet(model, batch.x, batch.time, batch.context, said, guidance=guidance, **extra)

    @torch.inference_mode()
    def __call__(self, batch: Batch, embeds: Sequence[Tensor] = ()) -> Tensor:
        """One forward of diffusers'. embeds: per adapter (rows, images, width)."""
        h, w = (-(-side // 2) for side in batch.x.shape[-2:])
        ids = torch.zeros(h, w, 3)
        ids[..., 1], ids[..., 2] = torch.arange(h)[:, None], torch.arange(w)
        extra: dict[str, Any] = (
            {} if self.chroma else {"guidance": batch.guidance, "pooled_projections": batch.pooled}
        )
        if embeds:
            extra["joint_attention_kwargs"] = {"ip_adapter_image_embeds": list(embeds)}
        out = self.network(
            hidden_states=rearrange(batch.x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2),
            encoder_hidden_states=batch.context,
            timestep=batch.time,
            txt_ids=torch.zeros(batch.context.shape[1], 3),
            img_ids=ids.reshape(-1, 3),
            return_dict=False,
            **extra,
        )[0]
        return rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=h, w=w, p=2, q=2)

    def load_xlabs(self, *adapters: Mapping[str, Mapping[str, Tensor]], scale: Any = 1.0) -> Twin:
        """Exactly these adapters. scale: one for all, or one list for each adapter with one for each double block."""
        self.network._load_ip_adapter_weights([dict(each) for each in adapters], low_cpu_mem_usage=False)
        self.scale_xlabs(scale)
        return self

    def scale_xlabs(self, scale: Any) -> None:
        """Of the loaded adapters, as the pipeline's set_ip_adapter_scale sets it."""
        found = [
            p for p in self.network.attn_processors.values() if isinstance(p, FluxIPAdapterAttnProcessor)
        ]
        for number, processor in enumerate(found):
            processor.scale = [
                scale if isinstance(scale, float) else scale[n][number] for n in range(len(processor.scale))
            ]

    def load_instantx(self, pairs: Mapping[str, Tensor], tokens: Tensor, scale: float) -> Twin:
        """InstantX's attention with these K'/V' matrices. tokens (rows, T, width); rows of zero add nothing."""
        names = list(self.network.attn_processors)
        made = {name: InstantXProcessor(pairs, n, tokens, scale) for n, name in enumerate(names)}
        self.network.set_attn_processor(made)
        return self


def copy_weights(weights: Mapping[str, Tensor], network: Any, config: Mapping[str, Any]) -> None:
    """From diffusers' names to the host's, by the host's own table; every tensor of the host must be reached."""
    table: Any = comfy.utils.flux_to_diffusers(dict(config), output_prefix="")
    ours, reached = network.state_dict(), set()
    for key, tensor in weights.items():
        place = table.get(key) or _of_approximator(key, ours)
        name, part, change = (place, None, None) if isinstance(place, str) else (*place, None)[:3]
        target = ours[name] if part is None else ours[name].narrow(*part)
        target.copy_(change(tensor) if change else tensor)
        reached.add(name)
    assert reached == set(ours), set(ours) - reached
    network.load_state_dict(ours)


def _of_approximator(key: str, ours: Mapping[str, Tensor]) -> str:
    """Chroma's distilled_guidance_layer, which the host's table leaves out."""
    plain = key.replace("linear_1", "in_layer").replace("linear_2", "out_layer")
    return plain if plain in ours else plain.replace("weight", "scale")


class InstantXProcessor:
    """Attention of one block as InstantX's attention_processor.py has it, on diffusers' modules.

    q after its norm and before rotary embedding; K' normed per head without weights, V' not; added before the projection:
    in blocks of two streams to the image rows, in those of one stream to all.
    """

    _attention_backend = _parallel_config = None

    def __init__(self, pairs: Mapping[str, Tensor], number: int, tokens: Tensor, scale: float):
        keys, values = (F.linear(tokens, pairs[f"{number}.to_{kind}_ip.weight"]) for kind in "kv")
        by_head = [t.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for t in (keys, values)]
        self.keys = by_head[0] * torch.rsqrt(by_head[0].pow(2).mean(-1, keepdim=True) + 1e-5)
        self.values, self.scale = by_head[1], scale

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        parts: Any = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        named: Any = [None if part is None else part.unflatten(-1, (HEADS, DIM)) for part in parts]
        q, k, v, *of_text = named
        q, k = attn.norm_q(q), attn.norm_k(k)
        plain = q.transpose(1, 2)
        if encoder_hidden_states is not None:
            q = torch.cat([attn.norm_added_q(of_text[0]), q], 1)
            k = torch.cat([attn.norm_added_k(of_text[1]), k], 1)
            v = torch.cat([of_text[2], v], 1)
        turn: Any = apply_rotary_emb
        q, k = (turn(part, image_rotary_emb, sequence_dim=1) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        added = F.scaled_dot_product_attention(plain, self.keys, self.values).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return out + self.scale * added
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[1](attn.to_out[0](out[:, text:] + self.scale * added))
        return image, attn.to_add_out(out[:, :text])
