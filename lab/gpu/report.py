"""The rows of a run as JSON, as text tables and as a picture; written anew behind every part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.tables import table
from .plan import Row, read_rows
from .plot import draw

JSON, TEXT, PICTURE = "gpu.json", "gpu.txt", "gpu.png"
ONE_PROMPT, FOUR_PROMPTS, FUSED = 1.01, 4.0, 0.01
# what -> (title, columns)
TABLES: dict[str, tuple[str, Sequence[str]]] = {
    "exact": ("Exactness beside the base model", ("bit-identical", "difference", "finite")),
    "time": ("Milliseconds of a step", ("ms", "added ms", "of base", "rounds", "absent")),
    "cost": (
        "Beyond the base model, in a step",
        ("sites", "operations", "operations, no views", "numbers read", "peak bytes", "allocations", "syncs"),
    ),
    "share": (
        "Our share of a step",
        (
            "our share of device us",
            "our share of bytes",
            "our operations",
            "launches",
            "our processor us",
            "waits",
        ),
    ),
    "training": ("A training step", ("ms", "losses", "peak bytes", "refused")),
    "compiled": ("torch.compile", ("first step s", "difference to eager", "ms", "of compiled base")),
    "failed": ("What failed", ("why",)),
}


def write(out: Path, device: str) -> None:
    """gpu.json, gpu.txt and gpu.png of all rows so far."""
    rows = read_rows(out)
    machine = next((row for row in rows if row["what"] == "machine"), {"device": device})
    bars = [*bars_of(rows)]
    content = {"machine": machine, "bars": bars, "rows": [row for row in rows if row is not machine]}
    (out / JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / TEXT).write_text(as_text(machine, bars, rows), encoding="utf-8")
    if any(row["what"] == "time" and "ms" in row for row in rows):
        draw(content, out / PICTURE)


def bars_of(rows: Sequence[Row]) -> list[Row]:
    """What the pack is held to, and what the next step is decided by."""
    found: list[Row] = []
    for row in rows:
        words, part = row.get("case", "").split(), row["part"]
        ours = ":" not in row.get("case", "") and "one by one" not in row.get("case", "")
        if row["what"] == "time" and "ms" in row and ours and words[0] == "1":
            found.append(_bar(part, row, "of base", row["of base"], ONE_PROMPT))
        elif row["what"] == "cost" and ours and words[0] == "4" and row["sites"]:
            per_site = row["operations, no views"] / row["sites"]
            found.append(_bar(part, row, "operations a site", per_site, FOUR_PROMPTS))
        elif row["what"] == "share" and ours and words[0] in "14" and "our share of device us" in row:
            share = row["our share of device us"]
            found.append(
                _bar(part, row, "share of device time: over it, a fused residual may pay", share, FUSED)
            )
        elif row["what"] == "exact" and row["case"] in MUST_EQUAL:
            found.append(_bar(part, row, "differs from the base model", float(not row["bit-identical"]), 0.0))
    return found


MUST_EQUAL = ("weight 0", "outside the window", "outside the window, 4 prompts")


def _bar(part: str, row: Row, name: str, measured: float, limit: float) -> Row:
    return {
        "part": part, "case": row["case"], "bar": name, "measured": measured, "at most": limit,
        "holds": measured <= limit,
    }  # fmt: skip


def as_text(machine: Row, bars: Sequence[Row], rows: Sequence[Row]) -> str:
    parts = [", ".join(f"{key} {value}" for key, value in machine.items() if key not in ("what", "part"))]
    for what, (title, columns) in TABLES.items():
        own = [row for row in rows if row["what"] == what]
        shown = [column for column in columns if any(row.get(column) is not None for row in own)]
        if own:
            body = [
                [f"{row['part']}: {row['case']}", *(cell(row.get(column)) for column in shown)] for row in own
            ]
            parts.append(f"{title}\n\n{table(['', *shown], body)}")
    if bars:
        body = [
            [
                f"{bar['part']}: {bar['case']}, {bar['bar']}",
                cell(bar["measured"]),
                cell(bar["at most"]),
                cell(bar["holds"]),
            ]
            for bar in bars
        ]
        parts.append(table(["Bars", "measured", "at most", "holds"], body))
    return "\n\n".join(parts) + "\n"


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, list):
        return " ".join(map(cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
