"""Projection of one vector for a whole picture through two layers, as InstantX has it for Flux.1.

Key names are those of the released file (InstantX/FLUX.1-dev-IP-Adapter, infer_flux_ipa_siglip.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..features import Features
from .base import Shape, Sizes
from .faceid import IdentityTokens


class PooledProjection(IdentityTokens):
    """Linear(e -> 2e), GELU, Linear(2e -> N·d), view as N tokens, LayerNorm; N = 128 in the released file."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        _, tokens, token_width, width = super().sizes(shapes, context_width, name)
        return Sizes(width, tokens, token_width)

    def tokens_of(self, features: Features) -> Tensor:
        return self(features.known_encoder)

    def forward(self, vector: Tensor) -> Tensor:
        return self.identity_tokens(vector)
