"""What the trainer needs of a base model and its encoders. The host provides it; so can anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adapter import KeysValues
from ..families.site import Site
from ..spec import Variant
from .batches import CropInfo
from .config import TrainingConfig
from .lora import TrainableLora
from .objective import Diffusion


@dataclass(frozen=True, eq=False)
class Texts:
    """Encoded captions: context (n, tokens, width), pooled (n, width) or None."""

    context: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class SampleRequest:
    """One picture to sample with an adapter: from `picture` (1, H, W, 3) and a caption, `side` pixels square."""

    picture: Tensor
    caption: str
    side: int
    seed: int
    steps: int = 30
    cfg: float = 7.5


class Base(Protocol):
    """A frozen base model. Pictures are (n, H, W, 3) in 0..1; what encoders return is fp32 on the CPU.

    dtype: what the UNet computes in. latents: (n, c, h, w), or twice as many channels, of which the second half are standard
    deviations, where they are to be drawn anew each time. features: of all pictures together, which may differ in size.
    attach_lora: computes with it from now on, instead of the one before. diffusers_names: of the attentions, by path.
    """

    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def unet(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def diffusion(self) -> Diffusion: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def compute_in(self, config: TrainingConfig) -> None: ...
    def load(self, gradient_checkpointing: bool) -> None: ...
    def latents(self, pictures: Tensor) -> Tensor: ...
    def features(self, kind: Variant, *pictures: Tensor) -> Tensor: ...
    def no_features(self, kind: Variant) -> Tensor: ...
    def attach_lora(self, lora: TrainableLora | None) -> None: ...
    def diffusers_names(self) -> Mapping[str, str]: ...
    def texts(self, captions: Sequence[str]) -> Texts: ...
    def predict(
        self, noisy: Tensor, timesteps: Tensor, texts: Texts, crops: Sequence[CropInfo], pairs: KeysValues
    ) -> Tensor: ...
