"""Projections of linear layers: one vector into a few tokens, or each encoder token by itself (ip_adapter.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from .base import Projection, Shape, Sizes, agree, matrix, whole_tokens


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
