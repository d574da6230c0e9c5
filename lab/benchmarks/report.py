"""The results as an aligned text table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .bars import Bar
from .counted import Row
from .full_size import PROJECTIONS, adapter_bytes, our_bytes
from .sides import SIDES
from .tables import table
from .timed import Timing


@dataclass(frozen=True)
class Results:
    machine: dict[str, Any]
    absent: list[str]
    rows: Sequence[Row]
    transformers: Sequence[Row]
    timings: Sequence[Timing]
    bars: Sequence[Bar]


def counted_table(rows: Sequence[Row], sides: Sequence[str]) -> str:
    """Per side 'all / not views' operations per site, host reads of a forward, MB of the adapter held, and MB that
    the peak of intermediate tensors is higher."""
    head = ["small model, one change from the central case"]
    head += [f"{side}: {what}" for side in sides for what in ("ops/site", "reads", "MB", "peak")]
    by_case = {(row.case, row.side): row for row in rows}
    body = []
    for case in dict.fromkeys(row.case for row in rows):
        line = [f"{case.family} {case.kind}, {case.change}"]
        for side in sides:
            line += _cells(by_case[case, side])
        body.append(line)
    return table(head, body)


def _cells(row: Row) -> list[str]:
    every, real = row.per_site
    return [
        f"{every:.1f} / {real:.1f}",
        str(row.beyond.reads),
        f"{row.held / 1e6:.2f}",
        f"{row.beyond.peak / 1e6:.2f}",
    ]


def full_size_table(families: Sequence[str], kinds: Sequence[str]) -> str:
    head = ["MB held while sampling, full size, fp16, by shapes", "ours", "de-facto pack, diffusers"]
    return table(
        head,
        [
            [f"{f} {k}", *(f"{mb:.1f}" for mb in pair.values())]
            for (f, k), pair in megabytes(families, kinds).items()
        ],
    )


def megabytes(families: Sequence[str], kinds: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    wanted = [key for key in PROJECTIONS if key[0] in families and key[1] in kinds]
    return {key: {"ours": our_bytes(*key) / 1e6, "peers": adapter_bytes(*key) / 1e6} for key in wanted}


def timed_table(timings: Sequence[Timing], sides: Sequence[str]) -> str:
    head = ["one site, ms added by one prompt", "text attention", *sides]
    body = [
        [
            f"{t.family} {t.kind} {t.shape}",
            f"{t.base['ours']:.3f}",
            *(f"{t.added[side]:.3f}" for side in sides),
        ]
        for t in timings
    ]
    return table(head, body)


def bars_table(bars: Sequence[Bar]) -> str:
    body = [[bar.name, f"{bar.measured:.2f}", f"{bar.limit:g}", "yes" if bar.holds else "NO"] for bar in bars]
    return table(["bar", "measured", "at most", "holds"], body)


def text(results: Results, families: Sequence[str], kinds: Sequence[str]) -> str:
    sides = [side for side in SIDES if side not in results.absent]
    parts = [
        ", ".join(f"{key} {value}" for key, value in results.machine.items()),
        *(f"{side}: absent (set IPADAPTER_PLUS_PATH to its checkout)" for side in results.absent),
        counted_table(results.rows, sides),
        counted_table(results.transformers, ["ours"]),
        full_size_table(families, kinds),
        timed_table(results.timings, sides),
        bars_table(results.bars),
    ]
    return "\n\n".join(parts) + "\n"


def as_dict(results: Results, families: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    """As JSON has it."""
    held = [{"family": f, "kind": k, **pair} for (f, k), pair in megabytes(families, kinds).items()]
    return {
        "machine": results.machine,
        "absent": results.absent,
        "counted": [row.as_json() for row in (*results.rows, *results.transformers)],
        "full_size_megabytes_fp16": held,
        "timed_ms": [asdict(timing) for timing in results.timings],
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in results.bars],
    }
