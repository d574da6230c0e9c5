"""The resampler: a few queries read the encoder's grid features through layers of attention (resampler.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import UnknownAdapterError
from .base import Projection, Shape, Sizes, agree, dims, matrix

DIM_HEAD = 64  # of every released resampler; not in the tensors, the number of heads follows from it


class PerceiverSizes(NamedTuple):
    """width: inner width of the layers. depth: their number. ff_width: hidden width of their feed-forward part."""

    feature_width: int
    width: int
    token_width: int
    heads: int
    depth: int
    ff_width: int

    @classmethod
    def of(cls, shapes: Mapping[str, Shape], name: str = "", prefix: str = "") -> PerceiverSizes:
        """From the shapes under `prefix`. Raises UnknownAdapterError if one of them is missing or odd."""
        width, feature_width = matrix(name, f"{prefix}proj_in.weight", shapes)
        layers = {key[len(prefix) :].split(".")[1] for key in shapes if key.startswith(f"{prefix}layers.")}
        return cls(
            feature_width,
            width,
            token_width=matrix(name, f"{prefix}proj_out.weight", shapes)[0],
            heads=_heads(name, f"{prefix}layers.0.0.to_q.weight", shapes),
            depth=len(layers),
            ff_width=matrix(name, f"{prefix}layers.0.1.1.weight", shapes)[0],
        )


class Perceiver(nn.Module):
    """Queries read the encoder's grid features through a few layers of attention (resampler.py)."""

    def __init__(self, sizes: PerceiverSizes, operations: Any = nn, **placement: Any):
        super().__init__()
        self.proj_in = operations.Linear(sizes.feature_width, sizes.width, **placement)
        self.proj_out = operations.Linear(sizes.width, sizes.token_width, **placement)
        self.norm_out = operations.LayerNorm(sizes.token_width, **placement)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    PerceiverAttention(sizes.width, sizes.heads, operations, **placement),
                    feed_forward(sizes.width, sizes.ff_width, operations, **placement),
                )
            )
            for _ in range(sizes.depth)
        )

    def read(self, latents: Tensor, features: Tensor) -> Tensor:
        """latents (n, tokens, width), features (n, encoder tokens, feature_width) -> (n, tokens, token_width)."""
        x = self.proj_in(features)  # (n, encoder tokens, width)
        for layer in self.layers:
            attention, ff = cast("nn.ModuleList", layer)
            latents = attention(x, latents) + latents
            latents = ff(latents) + latents
        return self.norm_out(self.proj_out(latents))


class Resampler(Perceiver, Projection):
    """Learnt queries read the encoder's grid features (paper section 4.4.2, 'plus')."""

    def __init__(self, sizes: PerceiverSizes, tokens: int, operations: Any = nn, **placement: Any):
        super().__init__(sizes, operations, **placement)
        self.latents = nn.Parameter(torch.empty(1, tokens, sizes.width, **placement))

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        sizes = PerceiverSizes.of(shapes, name)
        agree(name, "proj_out.weight", shapes["proj_out.weight"], context_width)
        return Sizes(sizes.feature_width, dims(name, "latents", shapes, 3)[1], context_width)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any) -> Resampler:
        return cls(PerceiverSizes.of(shapes), shapes["latents"][1], operations, **placement)

    def forward(self, features: Tensor) -> Tensor:
        return self.read(self.latents.to(features).expand(features.shape[0], -1, -1), features)


class PerceiverAttention(nn.Module):
    """Latents attend to the features and to themselves (resampler.py, PerceiverAttention)."""

    def __init__(self, width: int, heads: int, operations: Any = nn, **placement: Any):
        super().__init__()
        self.heads = heads
        inner = heads * DIM_HEAD
        self.norm1 = operations.LayerNorm(width, **placement)
        self.norm2 = operations.LayerNorm(width, **placement)
        self.to_q = operations.Linear(width, inner, bias=False, **placement)
        self.to_kv = operations.Linear(width, inner * 2, bias=False, **placement)
        self.to_out = operations.Linear(inner, width, bias=False, **placement)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        return self.read(self.norm1(x), self.norm2(latents))

    def read(self, x: Tensor, latents: Tensor) -> Tensor:
        """The same behind the norms."""
        q = self.to_q(latents)
        k, v = self.to_kv(torch.cat((x, latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=self.heads) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "n h l d -> n l (h d)"))


def feed_forward(width: int, hidden: int, operations: Any = nn, **placement: Any) -> nn.Sequential:
    """LayerNorm, Linear, GELU, Linear without biases, as in the Perceiver."""
    return nn.Sequential(
        operations.LayerNorm(width, **placement),
        operations.Linear(width, hidden, bias=False, **placement),
        nn.GELU(),
        operations.Linear(hidden, width, bias=False, **placement),
    )


def _heads(name: str, key: str, shapes: Mapping[str, Shape]) -> int:
    rows = matrix(name, key, shapes)[0]
    if rows % DIM_HEAD:
        raise UnknownAdapterError(
            f"{name}: image_proj.{key} has {rows} rows, not a multiple of {DIM_HEAD}. Download it again."
        )
    return rows // DIM_HEAD
