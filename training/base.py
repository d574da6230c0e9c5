"""What the trainer asks of a base model and its encoders. The host gives it; so can anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..ipadapter_core.adapter import KeysValues
from ..ipadapter_core.sites import Site
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.training.batches import Frame
from ..ipadapter_core.training.objective import Diffusion


class Texts(Protocol):
    """context (n, tokens, width), pooled (n, width) or None."""

    @property
    def context(self) -> Tensor: ...
    @property
    def pooled(self) -> Tensor | None: ...


class Base(Protocol):
    """Frozen. Pictures are (n, H, W, 3) in 0..1; what encoders give is fp32 on the CPU."""

    sites: tuple[Site, ...]

    @property
    def unet(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def diffusion(self) -> Diffusion: ...
    def load(self, recomputing: bool) -> None: ...
    def latents(self, pictures: Tensor) -> Tensor: ...
    def features(self, kind: Variant, picture: Tensor) -> Tensor: ...
    def no_features(self, kind: Variant) -> Tensor: ...
    def texts(self, captions: Sequence[str]) -> Any: ...
    def predict(
        self, noisy: Tensor, timesteps: Tensor, texts: Any, frames: Sequence[Frame], pairs: KeysValues
    ) -> Tensor: ...
