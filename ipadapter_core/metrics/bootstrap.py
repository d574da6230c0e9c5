"""How sure a difference between two methods is: the paired bootstrap over the references that both have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError

RESAMPLES, CHUNK, SEED = 10_000, 250, 0


@dataclass(frozen=True)
class Interval:
    """Of the mean difference over references: where 95 % of the resampled ones are. count: of references."""

    difference: float
    low: float
    high: float
    count: int

    @property
    def clear(self) -> bool:
        """Whether all of it is on one side of 0."""
        return self.low > 0 or self.high < 0


def paired_interval(first: Tensor, second: Tensor, resamples: int = RESAMPLES) -> Interval:
    """first, second: (n,), a score of each reference by both methods, in one order. Percentile intervals of `resamples`
    means of references drawn with replacement (Efron and Tibshirani 1993, chapter 13), always the same for the same numbers.

    Raises SettingError for none, or for numbers that are no pairs.
    """
    if first.shape != second.shape or not first.numel():
        raise SettingError(
            f"{first.numel()} and {second.numel()} scores make no pairs. Give one of each for every reference."
        )
    differences = (first - second).double()
    generator = torch.Generator().manual_seed(SEED)
    means = [
        differences[torch.randint(len(differences), (CHUNK, len(differences)), generator=generator)].mean(1)
        for _ in range(max(1, resamples // CHUNK))
    ]
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Interval(differences.mean().item(), low, high, len(differences))


def standard_error(values: Tensor) -> float:
    """Of the mean of (n,) numbers; not a number for less than two."""
    return (
        (values.double().std(correction=1) / len(values) ** 0.5).item() if len(values) > 1 else float("nan")
    )
