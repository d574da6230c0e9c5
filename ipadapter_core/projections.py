"""Image projection networks: CLIP vision features -> image tokens. Each reads its sizes from its own tensors.

Key names are those of the released files (tencent-ailab/IP-Adapter, ip_adapter/ip_adapter.py and resampler.py).
`operations` is `torch.nn` or the host's drop-in with automatic casts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .errors import UnknownAdapterError
from .features import Features

Shape = tuple[int, ...]
DIM_HEAD = 64  # of every released resampler; not in the tensors, the number of heads follows from it


class Sizes(NamedTuple):
    """feature_width: of the encoder output read, 0 if none is. tokens: per picture, None if one for each encoder token.

    token_width: of the tokens made. identity_width: of the face embedding read, 0 if none is.
    """

    feature_width: int
    tokens: int | None
    token_width: int
    identity_width: int = 0


class Projection(nn.Module):
    """Features of n pictures -> image tokens (n, tokens, token_width)."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        """Sizes told by the image_proj shapes; raises UnknownAdapterError if they contradict `context_width`,
        the columns of the K'/V' matrices that will read the tokens."""
        raise NotImplementedError

    def tokens_of(self, features: Features) -> Tensor:
        """Image tokens, from those of the features that this network reads."""
        return self(features.known_encoder)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any) -> Projection:
        """Build the network that these tensors fill; `placement` is dtype and device."""
        raise NotImplementedError


class ImageProjection(Projection):
    """Linear(e -> N·d), view as N tokens, LayerNorm. Paper section 3.2.1; N = 4 in the released files."""

    def __init__(
        self, feature_width: int, tokens: int, token_width: int, operations: Any = nn, **placement: Any
    ):
        super().__init__()
        self.tokens = tokens
        self.proj = operations.Linear(feature_width, tokens * token_width, **placement)
        self.norm = operations.LayerNorm(token_width, **placement)

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        rows, feature_width = matrix(name, "proj.weight", shapes)
        agree(name, "norm.weight", shapes["norm.weight"], context_width)
        return Sizes(feature_width, whole_tokens(name, "proj.weight", rows, context_width), context_width)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any
    ) -> ImageProjection:
        rows, feature_width = shapes["proj.weight"]
        token_width = shapes["norm.weight"][0]
        return cls(feature_width, rows // token_width, token_width, operations, **placement)

    def forward(self, features: Tensor) -> Tensor:
        x = self.proj(features)  # (n, N·d)
        return self.norm(rearrange(x, "n (t d) -> n t d", t=self.tokens))


class FullProjection(Projection):
    """Linear, GELU, Linear, LayerNorm on every encoder token: 257 image tokens of ViT-H ('full-face')."""

    def __init__(
        self, feature_width: int, hidden: int, token_width: int, operations: Any = nn, **placement: Any
    ):
        super().__init__()
        self.proj = nn.Sequential(
            operations.Linear(feature_width, hidden, **placement),
            nn.GELU(),
            operations.Linear(hidden, token_width, **placement),
            operations.LayerNorm(token_width, **placement),
        )

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        agree(name, "proj.2.weight", matrix(name, "proj.2.weight", shapes), context_width)
        return Sizes(matrix(name, "proj.0.weight", shapes)[1], None, context_width)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any
    ) -> FullProjection:
        hidden, feature_width = shapes["proj.0.weight"]
        return cls(feature_width, hidden, shapes["proj.2.weight"][0], operations, **placement)

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features)  # (n, encoder tokens, d)


class PerceiverSizes(NamedTuple):
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
        return cls(
            feature_width,
            width,
            matrix(name, f"{prefix}proj_out.weight", shapes)[0],
            _heads(name, f"{prefix}layers.0.0.to_q.weight", shapes),
            len({key[len(prefix) :].split(".")[1] for key in shapes if key.startswith(f"{prefix}layers.")}),
            matrix(name, f"{prefix}layers.0.1.1.weight", shapes)[0],
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
            attention, ff = layer  # pyright: ignore[reportGeneralTypeIssues]
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
        x, latents = self.norm1(x), self.norm2(latents)
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


def matrix(name: str, key: str, shapes: Mapping[str, Shape]) -> Shape:
    return dims(name, key, shapes, 2)


def dims(name: str, key: str, shapes: Mapping[str, Shape], count: int) -> Shape:
    shape = shapes.get(key)
    if shape is None or len(shape) != count:
        raise UnknownAdapterError(
            f"{name}: image_proj.{key} is {'missing' if shape is None else f'of shape {shape}'}, "
            f"expected a tensor of {count} dimensions. The file is damaged; download it again."
        )
    return shape


def whole_tokens(name: str, key: str, rows: int, width: int) -> int:
    """How many tokens of `width` the rows of a matrix are."""
    if rows % width:
        raise UnknownAdapterError(
            f"{name}: {key} has {rows} rows, not a multiple of {width}. Download it again."
        )
    return rows // width


def agree(name: str, key: str, shape: Shape, context_width: int) -> None:
    if shape[:1] != (context_width,):
        raise UnknownAdapterError(
            f"{name}: image_proj.{key} of shape {shape} does not make tokens of width {context_width}, which the "
            "attention matrices read. The file mixes two adapters; download it again."
        )
