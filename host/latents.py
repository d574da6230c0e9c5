"""Latents of pictures by the host's VAE: in which precision, and the mode of its distribution or all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..ipadapter_core.errors import SettingError


@dataclass(frozen=True)
class VaeEncoding:
    """full: in fp32, whatever the host chose. spread: with standard deviations behind the means."""

    full: bool = True
    spread: bool = False


def encode_latents(vae: Any, model: Any, pictures: Tensor, encoding: VaeEncoding) -> Tensor:
    """Pictures (n, H, W, 3) in 0..1 -> latents (n, c, h, w) as the UNet reads them, or (n, 2c, h, w) with the spread.

    A VAE of videos (Qwen-Image's) takes a batch for the frames of one, and gets each picture alone. Hosts of 2024 draw a
    sample by themselves, newer ones take the mode. Raises SettingError for a VAE that has no spread.
    """
    network = getattr(vae, "first_stage_model", None)
    distribution = getattr(network, "regularization", None)
    known = distribution is not None and hasattr(distribution, "sample")
    if encoding.spread and not known:
        raise SettingError(
            f"latents is sampled, but this VAE ({type(network or vae).__name__}) has no distribution to draw from. Set "
            "latents to mode."
        )
    with _in_full_precision(vae, network if encoding.full else None):
        if not known:
            parts = pictures.split(1) if frames_of(model) else (pictures,)
            latents = model.process_latent_in(torch.cat([vae.encode(part) for part in parts]))
            return latents.flatten(1, -3)
        with _replaced(network, "regularization", _Moments() if encoding.spread else _Mode()):
            found = vae.encode(pictures) if not encoding.spread else _both(vae, pictures)
    if not encoding.spread:
        return model.process_latent_in(found)
    mean, log_variance = found.chunk(2, dim=1)
    std = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
    # the format is linear: what it adds is not added to a spread
    at_mean = model.process_latent_in(mean)
    return torch.cat((at_mean, model.process_latent_in(mean + std) - at_mean), dim=1)


def frames_of(model: Any) -> tuple[int, ...]:
    """What stands between channels and height in latents as the model reads them: one frame, of formats of videos."""
    return (1,) * (getattr(model.latent_format, "latent_dimensions", 2) - 2)


def _both(vae: Any, pictures: Tensor) -> Tensor:
    """Means and log variances; the host makes room for as many channels as the VAE is said to have."""
    if not hasattr(vae, "latent_channels"):
        return vae.encode(pictures)
    with _replaced(vae, "latent_channels", 2 * vae.latent_channels):
        return vae.encode(pictures)


class _Mode(nn.Module):
    def forward(self, moments: Tensor) -> tuple[Tensor, None]:
        return moments.chunk(2, dim=1)[0], None


class _Moments(nn.Module):
    def forward(self, moments: Tensor) -> tuple[Tensor, None]:
        return moments, None


@contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def _in_full_precision(vae: Any, network: Any) -> Iterator[None]:
    """With the VAE's weights in fp32, and as before at the end; a half number is exact in fp32."""
    before = getattr(vae, "vae_dtype", torch.float32)
    if network is None or before is torch.float32:
        yield
        return
    with torch.inference_mode(False):
        network.to(torch.float32)
    try:
        with _replaced(vae, "vae_dtype", torch.float32):
            yield
    finally:
        with torch.inference_mode(False):
            network.to(before)
