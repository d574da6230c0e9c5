"""Faces without a detector: embeddings and aligned crops that a test gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from support import tiny
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GivenFaces:
    """Stands in for `Faces`: groups of numbers of `identities` (n, 512) and `aligned` (n, 32, 32, 3).

    The crops have the size of the small encoder, whatever size is asked for, so that none is resized; `asked` tells.
    """

    identities: Tensor
    aligned: Tensor
    groups: tuple[tuple[int, ...], ...]
    asked: list[int] = field(default_factory=list)

    @property
    def present(self) -> tuple[bool, ...]:
        return tuple(bool(group) for group in self.groups)

    def embeddings(self, normalise: bool) -> Tensor:
        given = torch.nn.functional.normalize(self.identities) if normalise else self.identities
        return torch.stack([given[list(g)].mean(0) if g else torch.zeros(512) for g in self.groups])

    def crops(self, size: int) -> Tensor:
        self.asked.append(size)
        return self.aligned[[number for group in self.groups for number in group]]


def given_faces(count: int = 1, seed: int = 71) -> GivenFaces:
    """`count` random faces, one a group."""
    identities = torch.randn(count, 512, generator=torch.Generator().manual_seed(seed)) * 3
    aligned = tiny.picture(seed, count=count)
    return GivenFaces(identities, aligned, tuple((n,) for n in range(count)))
