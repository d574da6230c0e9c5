"""The FaceID family: face embeddings, with or without a view of the face, -> image tokens (ip_adapter_faceid.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ..features import Features
from .base import Projection, Shape, Sizes, agree, matrix, whole_tokens
from .resampler import Perceiver, PerceiverSizes, Resampler

_PERCEIVER = "perceiver_resampler."


class IdentityTokens(Projection):
    """Linear(512 -> 1024), GELU, Linear(1024 -> N·d), view as N tokens, LayerNorm: what the family has in common."""

    def __init__(
        self,
        identity_width: int,
        hidden: int,
        tokens: int,
        token_width: int,
        operations: Any = nn,
        **placement: Any,
    ):
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Sequential(
            operations.Linear(identity_width, hidden, **placement),
            nn.GELU(),
            operations.Linear(hidden, tokens * token_width, **placement),
        )
        self.norm = operations.LayerNorm(token_width, **placement)

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        agree(name, "norm.weight", shapes["norm.weight"], context_width)
        rows = matrix(name, "proj.2.weight", shapes)[0]
        tokens = whole_tokens(name, "proj.2.weight", rows, context_width)
        return Sizes(0, tokens, context_width, matrix(name, "proj.0.weight", shapes)[1])

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any
    ) -> IdentityTokens:
        hidden, identity_width = shapes["proj.0.weight"]
        token_width = shapes["norm.weight"][0]
        tokens = shapes["proj.2.weight"][0] // token_width
        return cls(identity_width, hidden, tokens, token_width, operations, **placement)

    def identity_tokens(self, identity: Tensor) -> Tensor:
        x = self.proj(identity)  # (n, N·d)
        return self.norm(rearrange(x, "n (t d) -> n t d", t=self.tokens))


class FaceIDProjection(IdentityTokens):
    """The identity's tokens are the image tokens. N = 4, portrait 16."""

    def tokens_of(self, features: Features) -> Tensor:
        return self(features.known_identity)

    def forward(self, identity: Tensor) -> Tensor:
        return self.identity_tokens(identity)


class FaceIDPlusProjection(IdentityTokens):
    """The identity's tokens are the queries that read the encoder's grid features of the face (ProjPlusModel)."""

    shortcut = False
    perceiver_resampler: Perceiver

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        sizes = super().sizes(shapes, context_width, name)
        return sizes._replace(feature_width=PerceiverSizes.of(shapes, name, _PERCEIVER).feature_width)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any
    ) -> IdentityTokens:
        made = super().from_shapes(shapes, operations, **placement)
        made.perceiver_resampler = Perceiver(
            PerceiverSizes.of(shapes, prefix=_PERCEIVER), operations, **placement
        )
        return made

    def tokens_of(self, features: Features) -> Tensor:
        return self(features.known_identity, features.known_encoder, features.structure)

    def forward(self, identity: Tensor, encoder: Tensor, structure: float = 1.0) -> Tensor:
        queries = self.identity_tokens(identity)
        read = self.perceiver_resampler.read(queries, encoder)
        return queries + structure * read if self.shortcut else read


class FaceIDPlusV2Projection(FaceIDPlusProjection):
    """v2: the identity's own tokens stay, and the view of the face is added with a weight."""

    shortcut = True


class KolorsFaceIDProjection(FaceIDPlusV2Projection):
    """As v2, but its tokens have the width of Kolors' text encoder: the UNet's encoder_hid_proj comes in between."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        return super().sizes(shapes, shapes["norm.weight"][0], name)


class IdentityResampler(Resampler):
    """A resampler that reads the face embedding as its only feature (portrait unnorm, InstantID)."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        sizes = super().sizes(shapes, context_width, name)
        return sizes._replace(feature_width=0, identity_width=sizes.feature_width)

    def tokens_of(self, features: Features) -> Tensor:
        return self(features.known_identity[:, None])
