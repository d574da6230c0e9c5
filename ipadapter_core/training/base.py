"""What the trainer asks of a base model and its encoders. The host gives it; so can anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adapter import KeysValues
from ..families.site import Site
from ..spec import Variant
from .batches import Frame
from .objective import Diffusion
from .recipe import Recipe


@dataclass(frozen=True, eq=False)
class Texts:
    """Encoded captions: context (n, tokens, width), pooled (n, width) or None."""

    context: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class Wish:
    """One picture to make with an adapter: from `picture` (1, H, W, 3) and a caption, `side` pixels square."""

    picture: Tensor
    caption: str
    side: int
    seed: int
    steps: int = 30
    cfg: float = 7.5


class Base(Protocol):
    """Frozen. Pictures are (n, H, W, 3) in 0..1; what encoders give is fp32 on the CPU. dtype: what the UNet computes in."""

    sites: tuple[Site, ...]

    @property
    def unet(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def diffusion(self) -> Diffusion: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def compute_in(self, recipe: Recipe) -> None: ...
    def load(self, recomputing: bool) -> None: ...
    def latents(self, pictures: Tensor) -> Tensor: ...
    def features(self, kind: Variant, picture: Tensor) -> Tensor: ...
    def no_features(self, kind: Variant) -> Tensor: ...
    def texts(self, captions: Sequence[str]) -> Texts: ...
    def predict(
        self, noisy: Tensor, timesteps: Tensor, texts: Texts, frames: Sequence[Frame], pairs: KeysValues
    ) -> Tensor: ...
