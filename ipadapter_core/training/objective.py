"""The training objective: noised latents, what the UNet should predict from them, and the loss. Eq. (1) and (6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import TrainingConfig

# (n,) times on the CPU
DrawTimes = Callable[[torch.Generator, int], Tensor]


class Objective(Protocol):
    """How latents (n, c, h, w) are noised at times (n,), and what the network should predict of them.

    times: how many there are, each equally likely, or what draws them. timesteps: as the network reads them. weights: of the
    loss of each sample, (n,) on the CPU; None where all are 1.
    """

    def times(self, config: TrainingConfig) -> int | DrawTimes: ...
    def timesteps(self, times: Tensor) -> Tensor: ...
    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor: ...
    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor: ...
    def weights(self, times: Tensor, config: TrainingConfig) -> Tensor | None: ...


@dataclass(frozen=True, eq=False)
class Diffusion:
    """alphas_cumprod (T,): part of the signal's variance that is left at each timestep.

    v_prediction: the UNet predicts v, else the noise.
    """

    alphas_cumprod: Tensor
    v_prediction: bool = False

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def times(self, config: TrainingConfig) -> int:
        return len(self)

    def timesteps(self, times: Tensor) -> Tensor:
        return times

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """x_t = alpha_t · x_0 + sigma_t · eps of latents (n, c, h, w) at times (n,)."""
        alpha, sigma = self._scales(times, latents)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """eps; or v = alpha_t · eps - sigma_t · x_0 (arXiv 2202.00512)."""
        if not self.v_prediction:
            return noise
        alpha, sigma = self._scales(times, latents)
        return alpha * noise - sigma * latents

    def weights(self, times: Tensor, config: TrainingConfig) -> Tensor | None:
        return self.min_snr_weights(times, config.min_snr) if config.min_snr else None

    def min_snr_weights(self, times: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / SNR at times (n,), for v over SNR + 1: (n,) on the CPU (arXiv 2303.09556, section 3.4)."""
        signal = self.alphas_cumprod.float()[times.cpu()]
        snr = signal / (1 - signal)
        return snr.clamp(max=gamma) / (snr + 1) if self.v_prediction else (gamma / snr).clamp(max=1)

    def _scales(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t), each (n, 1, 1, 1)."""
        signal = self.alphas_cumprod.to(like.device, torch.float32)[times.to(like.device)]
        signal = signal.view(-1, 1, 1, 1)
        return signal.sqrt().to(like), (1 - signal).sqrt().to(like)


def loss_of(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean square error over the batch, in fp32. weights: (n,), of each sample."""
    if weights is None:
        return F.mse_loss(predicted.float(), target.float())
    each = F.mse_loss(predicted.float(), target.float(), reduction="none").flatten(1).mean(1)
    return (each * weights.to(each)).mean()
