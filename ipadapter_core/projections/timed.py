"""The resampler whose tokens follow from the timestep, as InstantX has it for SD3.5.

Key names are those of the released file (InstantX/SD3.5-Large-IP-Adapter, models/resampler.py, TimeResampler).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features import Features
from .base import Projection, Shape, Sizes, agree, dims, matrix
from .resampler import PerceiverAttention, PerceiverSizes, feed_forward

_LONGEST_PERIOD = 10_000


class TimeEmbedding(nn.Module):
    """Two layers over cosines and sines of the timestep."""

    def __init__(self, waves: int, width: int, operations: Any = nn, **placement: Any):
        super().__init__()
        self.waves = waves
        self.linear_1 = operations.Linear(waves, width, **placement)
        self.linear_2 = operations.Linear(width, width, **placement)

    def forward(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """timesteps (n) in 0..1000 -> (n, width) as `like`."""
        half = self.waves // 2
        steps = torch.arange(half, device=like.device, dtype=torch.float32)
        angles = timesteps.float()[:, None] * torch.exp(steps * (-math.log(_LONGEST_PERIOD) / half))
        waves = torch.cat((angles.cos(), angles.sin()), -1).to(like)
        return self.linear_2(F.silu(self.linear_1(waves)))


class TimeResampler(Projection):
    """Learnt queries read the encoder's grid features; the timestep shifts and scales them in every layer."""

    def __init__(
        self, sizes: PerceiverSizes, tokens: int, waves: int, operations: Any = nn, **placement: Any
    ):
        super().__init__()
        width = sizes.width
        self.latents = nn.Parameter(torch.empty(1, tokens, width, **placement))
        self.time_embedding = TimeEmbedding(waves, width, operations, **placement)
        self.proj_in = operations.Linear(sizes.feature_width, width, **placement)
        self.proj_out = operations.Linear(width, sizes.token_width, **placement)
        self.norm_out = operations.LayerNorm(sizes.token_width, **placement)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    PerceiverAttention(width, sizes.heads, operations, **placement),
                    feed_forward(width, sizes.ff_width, operations, **placement),
                    nn.Sequential(nn.SiLU(), operations.Linear(width, 4 * width, **placement)),
                )
            )
            for _ in range(sizes.depth)
        )

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        """token_width is that of the features: they are all that can be made before the timestep is known."""
        sizes = PerceiverSizes.of(shapes, name)
        agree(name, "proj_out.weight", shapes["proj_out.weight"], context_width)
        matrix(name, "time_embedding.linear_1.weight", shapes)
        return Sizes(sizes.feature_width, dims(name, "latents", shapes, 3)[1], sizes.feature_width)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any
    ) -> TimeResampler:
        waves = shapes["time_embedding.linear_1.weight"][1]
        return cls(PerceiverSizes.of(shapes), shapes["latents"][1], waves, operations, **placement)

    def tokens_of(self, features: Features) -> Tensor:
        """The features themselves (n, encoder tokens, feature_width)."""
        return features.known_encoder

    def forward(self, features: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, tokens, token_width) of n pictures at these timesteps (1 or n), and their embedding (1 or n, width)."""
        time = self.time_embedding(timesteps, features)
        x = self.proj_in(features) + time[:, None]
        latents = self.latents.to(features).expand(features.shape[0], -1, -1)
        active = F.silu(time)
        for layer in self.layers:
            latents = _read(cast("nn.ModuleList", layer), x, latents, active)
        return self.norm_out(self.proj_out(latents)), time


def _read(layer: nn.ModuleList, x: Tensor, latents: Tensor, active: Tensor) -> Tensor:
    """active: the time embedding behind the activation that all layers share."""
    attention, ff, (_, modulation) = cast(
        "tuple[PerceiverAttention, nn.Sequential, nn.Sequential]", tuple(layer)
    )
    shift, scale, ff_shift, ff_scale = modulation(active)[:, None].chunk(4, dim=-1)
    latents = latents + attention.read(attention.norm1(x), modulated(attention.norm2(latents), shift, scale))
    norm, up, activation, down = ff
    return latents + down(activation(up(modulated(norm(latents), ff_shift, ff_scale))))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift"""
    return torch.addcmul(shift, x, 1 + scale)
