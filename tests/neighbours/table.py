"""The table of the measured rows, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .measure import Row

LIMIT = 1e-4  # relative, fp32: rounding gives 3e-6; the smallest defect that was ever measured gives 4e-2
COLUMNS = ("before", "after", "before 1e-6", "after 1e-6")


@dataclass(frozen=True)
class Line:
    """One pack: plain, with a mask, and with one image for each picture."""

    plain: Row
    masked: Row
    each: Row

    @property
    def rows(self) -> dict[str, Row]:
        return {"": self.plain, "mask ": self.masked, "each ": self.each}

    @property
    def wrong(self) -> list[str]:
        """What is neither right nor said in a sentence of ours; what a weight of 0 changes."""
        found = [
            f"{kind}{name}: {_figure(error)}"
            for kind, row in self.rows.items()
            for name, error in row.errors.items()
            if not row.fits(error, LIMIT)
        ]
        return found + [f"weight 0 {name}" for name, same in self.plain.same_at_zero.items() if not same]


def markdown(lines: Sequence[Line]) -> str:
    head = [
        "pack",
        "the image's effect",
        *COLUMNS,
        "weight 0",
        "mask before",
        "mask after",
        "each before",
        "each after",
    ]
    body = [_cells(line) for line in lines]
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n" + _sentences(lines)


def _cells(line: Line) -> list[str]:
    same = "equal" if all(line.plain.same_at_zero.values()) else "NOT EQUAL"
    plain = [_figure(line.plain.errors[name]) for name in COLUMNS]
    pairs = [_figure(row.errors[name]) for row in (line.masked, line.each) for name in ("before", "after")]
    return [line.plain.case.name, f"{line.plain.effect:.2f}", *plain, same, *pairs]


def _figure(error: float | str) -> str:
    return f"{error:.1e}" if isinstance(error, float) else error.split(":")[0]


def _sentences(lines: Sequence[Line]) -> str:
    found = {
        f"- {line.plain.case.name}: {error}"
        for line in lines
        for row in line.rows.values()
        for error in row.errors.values()
        if isinstance(error, str)
    }
    return "\n" + "\n".join(sorted(found)) + "\n" if found else ""
