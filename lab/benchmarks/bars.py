"""The limits that the pack is held to, and whether this run's numbers keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .counted import Row
from .full_size import our_bytes
from .timed import Timing

ALL, REAL, READS, MEGABYTES = 14, 5, 1, 16.0
TRANSFORMER = 8  # operations at a site of a transformer that are no views, a step's shared ones among them
OF_DE_FACTO, OF_DIFFUSERS = 0.5, 1.0


@dataclass(frozen=True)
class Bar:
    """`measured` must not be over `limit`."""

    name: str
    measured: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


def counted_bars(rows: Iterable[Row]) -> list[Bar]:
    """Of our own rows. Operations: of one prompt without mask, or of each of several."""
    own = [row for row in rows if row.side == "ours"]
    central = [row for row in own if row.case.change == "central"]
    bars = []
    for row in central:
        name = f"operations per site, {row.case.family} {row.case.kind}"
        bars += [Bar(name, row.per_site[0], ALL), Bar(f"{name}, not views", row.per_site[1], REAL)]
    reads = [Bar("host reads per step, at most", max((row.beyond.reads for row in own), default=0), READS)]
    return [
        *bars,
        *reads,
        Bar("MB held, full-size SDXL plus, fp16", our_bytes("SDXL", "plus") / 1e6, MEGABYTES),
    ]


def timed_bars(timings: Sequence[Timing]) -> list[Bar]:
    """Ours over each peer, at the site shape where it is worst."""
    limits = {"de-facto pack": OF_DE_FACTO, "diffusers": OF_DIFFUSERS}
    bars = []
    for peer, limit in limits.items():
        ratios = [(t.added["ours"] / max(t.added[peer], 1e-6), t) for t in timings if peer in t.added]
        if ratios:
            ratio, worst = max(ratios, key=lambda pair: pair[0])
            where = f"{worst.family} {worst.kind} {worst.shape}"
            bars.append(Bar(f"time added per site over {peer}, worst: {where}", ratio, limit))
    return bars
