"""Heat maps: at each position of the picture, the norm of what an image prompt adds, beside that of what attention gave."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .masking import Crop

_LEAST = 1e-6  # norms that are less count as this


@dataclass(frozen=True)
class Place:
    """What the rows of one sum are of: grid (h, w) of tokens, the crop of the picture, numbers of pictures in the batch."""

    grid: tuple[int, int]
    crop: Crop
    numbers: tuple[int, ...]


def token_norms(tokens: Tensor) -> Tensor:
    """(rows, N, width) -> (rows, N) in fp32."""
    return torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float32)


def base_norms(tokens: Tensor) -> Tensor:
    """(rows, N, width) -> (rows, N) in fp32, by which what is added is divided."""
    return token_norms(tokens).clamp_min(_LEAST)


def share_beside(addition: Tensor, base: Tensor, weights: Tensor | None = None) -> Tensor:
    """‖addition · weights‖ / base: (rows, N). base (rows, N): of `base_norms`. weights (1 or rows, 1 or N, 1)."""
    norms = token_norms(addition)
    if weights is not None:
        norms = norms * weights[..., 0].abs()
    return norms / base


@dataclass(eq=False)
class HeatSums:
    """Sums over calls and sites for one image prompt, where they were made: on the device, until `to_cpu`."""

    sums: dict[Place, Tensor] = field(default_factory=dict[Place, Tensor])
    calls: dict[Place, int] = field(default_factory=dict[Place, int])

    def add(self, place: Place, shares: Tensor, factor: float = 1.0) -> None:
        """shares (rows, h·w), times |factor|."""
        known = self.sums.get(place)
        if known is None:
            self.sums[place] = shares * abs(factor)
        else:
            known.add_(shares, alpha=abs(factor))
        self.calls[place] = self.calls.get(place, 0) + 1

    def to_cpu(self) -> HeatSums:
        return HeatSums({place: sums.cpu() for place, sums in self.sums.items()}, dict(self.calls))

    def mean(self, pictures: int, full: tuple[int, int]) -> Tensor:
        """(pictures, H, W) over the latent: the mean of all calls that covered a position, 0 where none did.

        Every position takes the value of the token that covers it, so that what is summed over the picture stays as it
        was summed over the tokens.
        """
        total, seen = torch.zeros(2, pictures, *full)
        for place, sums in self.sums.items():
            crop = place.crop
            maps = sums.cpu().view(-1, 1, *place.grid)
            maps = F.interpolate(maps, (crop.height, crop.width), mode="nearest-exact")[:, 0]
            rows = (torch.arange(crop.height) + crop.top) % full[0]
            columns = (torch.arange(crop.width) + crop.left) % full[1]
            at = torch.tensor(place.numbers)[:, None, None], rows[:, None], columns
            total.index_put_(at, maps, accumulate=True)
            seen.index_put_(at, torch.full_like(maps, self.calls[place]), accumulate=True)
        return total / seen.clamp_min(1)


def picked(number: int, count: int, most: int) -> bool:
    """Whether site `number` of `count` is among at most `most`, evenly spread; 0 picks all."""
    if most <= 0 or most >= count:
        return True
    return number in {(2 * n + 1) * count // (2 * most) for n in range(most)}
