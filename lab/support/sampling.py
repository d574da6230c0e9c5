"""The host's real sampler on small models."""

from __future__ import annotations

from typing import Any

import comfy.sample
import torch
from torch import Tensor

from . import tiny


def prompts(family: tiny.Family) -> tuple[list, list]:
    """(positive, negative) conditioning as the host's text nodes give it."""
    pair = []
    for seed in (10, 11):
        context, _ = tiny.conditioning(family, seed)
        pooled = {"pooled_output": torch.randn(1, 1280, generator=torch.Generator().manual_seed(seed))}
        pair.append([[context, pooled if family.adm else {}]])
    return pair[0], pair[1]


def sample(
    model: Any,
    family: tiny.Family,
    steps: int = 4,
    cfg: float = 4.0,
    pictures: int = 1,
    size: tuple[int, int] = (16, 16),
    conds: tuple[list, list] | None = None,
    sampler: str = "euler",
) -> Tensor:
    """Latents (pictures, 4, h, w) from the host's KSampler code."""
    positive, negative = conds or prompts(family)
    noise = torch.randn(pictures, 4, *size, generator=torch.Generator().manual_seed(9))
    latent = torch.zeros_like(noise)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, "normal", positive, negative, latent, disable_pbar=True
        )
