"""What the trainer needs of a base model and its encoders. The host provides it; so can anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adapter import KeysValues, TimedKeysValues
from ..families.site import Site
from ..spec import Variant
from .batches import CropInfo
from .config import TrainingConfig
from .lora import TrainableLora
from .objective import Objective


@dataclass(frozen=True, eq=False)
class Texts:
    """Encoded captions: context (n, tokens, width), pooled (n, width) or None.

    lengths (n,): tokens of each, behind which its context is filled up with zeros that the model is not to see; None where
    all are as long.
    """

    context: Tensor
    pooled: Tensor | None
    lengths: Tensor | None = None

    def rows_by_length(self) -> list[Tensor]:
        """Numbers of the rows of each length; on the CPU, as lengths are."""
        if self.lengths is None:
            return [torch.arange(len(self.context))]
        return [torch.nonzero(self.lengths == length).flatten() for length in self.lengths.unique()]

    def of_rows(self, rows: Tensor) -> Texts:
        """Of rows of one length, without what fills them up."""
        end = self.context.shape[1] if self.lengths is None else int(self.lengths[rows[0]])
        return Texts(self.context[rows, :end], None if self.pooled is None else self.pooled[rows])


def to_length(context: Tensor, length: int) -> Tensor:
    """(n, t, d) -> (n, length, d): cut, or followed by zeros."""
    return torch.nn.functional.pad(context[:, :length], (0, 0, 0, max(0, length - context.shape[1])))


@dataclass(frozen=True)
class SampleRequest:
    """One picture to sample with an adapter: from `picture` (1, H, W, 3) and a caption, `side` pixels square. cfg: None for
    that of the family."""

    picture: Tensor
    caption: str
    side: int
    seed: int
    steps: int = 30
    cfg: float | None = None


class Base(Protocol):
    """A frozen base model. Pictures are (n, H, W, 3) in 0..1; what encoders return is fp32 on the CPU.

    latent_channels: without standard deviations. dtype: what the UNet computes in. latents: (n, c, h, w), or twice as many
    channels, of which the second half are standard deviations, where they are to be drawn anew each time. features: of all
    pictures together, which may differ in size. attach_lora: computes with it from now on, instead of the one before.
    diffusers_names: of the attentions, by path.
    """

    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def unet(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def diffusion(self) -> Objective: ...
    @property
    def latent_channels(self) -> int: ...
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
        self,
        noisy: Tensor,
        timesteps: Tensor,
        texts: Texts,
        crops: Sequence[CropInfo],
        pairs: KeysValues | TimedKeysValues,
    ) -> Tensor: ...
