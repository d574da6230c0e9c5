"""Projection of one vector for a whole picture through two layers, as InstantX has it for Flux.1.

Key names are those of the released file (InstantX/FLUX.1-dev-IP-Adapter, infer_flux_ipa_siglip.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..features import Features
from .base import Shape, Sizes
from .faceid import IdentityTokens

_ROWS = 2**15  # of a matrix at a time: 0.3 GB in fp32


class PooledProjection(IdentityTokens):
    """Linear(e -> 2e), GELU, Linear(2e -> N·d), view as N tokens, LayerNorm; N = 128 in the released file."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        _, tokens, token_width, width = super().sizes(shapes, context_width, name)
        return Sizes(width, tokens, token_width)

    def tokens_of(self, features: Features) -> Tensor:
        return self(features.known_encoder)

    def forward(self, vector: Tensor) -> Tensor:
        """The last matrix of the released file, 2.4 GB in bf16, is taken to the vector's dtype in parts."""
        layers: Any = self.proj
        hidden, last = layers[1](layers[0](vector)), layers[2]
        parts = [
            F.linear(hidden, weight.to(hidden), bias.to(hidden))
            for weight, bias in zip(last.weight.split(_ROWS), last.bias.split(_ROWS), strict=True)
        ]
        return self.norm(rearrange(torch.cat(parts, -1), "n (t d) -> n t d", t=self.tokens))
