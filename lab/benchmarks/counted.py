"""The counted half: operations, host reads and bytes of every case and side. Exact, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .cases import Case
from .counting import Count, count, size_in_bytes
from .sides import present


@dataclass(frozen=True)
class Row:
    """What one side does beyond its base in one forward, and holds while sampling."""

    case: Case
    side: str
    sites: int
    beyond: Count
    held: int

    @property
    def per_site(self) -> tuple[float, float]:
        """Operations per site where the prompt runs: all, and those that are not views."""
        return self.beyond.all / self.sites, self.beyond.real / self.sites

    def as_json(self) -> dict[str, Any]:
        case = self.case
        return {
            "family": case.family,
            "kind": case.kind,
            "change": case.change,
            "side": self.side,
            "sites": self.sites,
            "operations": self.beyond.all,
            "operations_no_views": self.beyond.real,
            "host_reads": self.beyond.reads,
            "bytes_held": self.held,
            "peak_bytes": self.beyond.peak,
        }


def measure(case: Case, side: str) -> Row:
    rig = present()[side](case)
    base = count(rig.base())
    patched = count(rig.run())
    return Row(case, side, rig.sites, patched.beyond(base), size_in_bytes(rig.held()))


def measure_all(todo: Iterable[Case]) -> Iterable[Row]:
    for case in todo:
        for side in present():
            yield measure(case, side)
