"""Methods side by side: differences of their means over the references that both have, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch

from ..ipadapter_core.metrics.bootstrap import Interval, paired_interval
from ..ipadapter_core.metrics.scores import Score
from .scoring import Result

# attribute of a score, and its name
MEASURES = (("clip_i", "CLIP-I"), ("clip_t", "CLIP-T"), ("dino_i", "DINO-I"))


def comparisons(results: Sequence[Result]) -> Iterator[tuple[str, str, str, Interval]]:
    """(method, other method, measure, interval) of every pair that shares two references or more."""
    for first, second in combinations(results, 2):
        by_name: list[dict[str, Score]] = [{each.name: each for each in r.scores} for r in (first, second)]
        names = [name for name in by_name[0] if name in by_name[1]]
        for attribute, measure in MEASURES:
            pairs = [tuple(getattr(scores[name], attribute) for scores in by_name) for name in names]
            known = [pair for pair in pairs if None not in pair]
            if len(known) > 1:
                a, b = torch.tensor(known, dtype=torch.double).unbind(1)
                yield first.name, second.name, measure, paired_interval(a, b)
