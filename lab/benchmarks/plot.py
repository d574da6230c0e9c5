"""One picture of the results: what one image prompt adds here, beside the older pack and diffusers.

`python -m lab.benchmarks.plot cost.json cost.png` draws it again from the numbers of a run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"ours": "#1b7f5c", "de-facto pack": "#c8553d", "diffusers": "#5b7db1"}
NAMES = {"ours": "Image Prompt (this pack)", "de-facto pack": "ComfyUI_IPAdapter_plus"}
# the older pack and diffusers hold the same: the adapter itself
PEERS = ("de-facto pack", "diffusers")
TITLE = "What one image prompt adds to sampling (shorter bars are better)"
Values = dict[str, list[float]]


def draw(content: dict[str, Any], path: Path) -> None:
    """Three panels from the JSON of a run, of 'plus' adapters where they were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    kinds = [row["kind"] for row in content["counted"]]
    kind = "plus" if "plus" in kinds else kinds[0]
    sides = [side for side in COLOURS if side not in content["absent"]]
    figure, axes = pyplot.subplots(1, 3, figsize=(13.5, 5.4), width_ratios=(1, 1, 1.5), layout="constrained")
    _operations(axes[0], content, kind, sides)
    _memory(axes[1], content, kind, sides)
    _times(axes[2], content, kind, sides)
    for axis in axes:
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
        axis.set_xticks([])
        axis.margins(x=0.12)
    figure.legend(
        [Rectangle((0, 0), 1, 1, color=COLOURS[side]) for side in sides],
        [NAMES.get(side, side) for side in sides],
        loc="outside lower left",
        ncols=len(sides),
        frameon=False,
        fontsize=12,
    )
    figure.suptitle(TITLE, x=0.01, ha="left", fontsize=16, weight="bold")
    axes[2].set_xlabel(_caption(content["machine"], kind), loc="right", fontsize=9, color="#666666")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _caption(machine: dict[str, Any], kind: str) -> str:
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    return (
        f"One picture, '{kind}' adapter, the same weights and inputs for all. Times: {where}, {machine['threads']} threads, "
        f"{machine['timed_in']}, medians of {machine['rounds']} calls, {machine['date']}."
    )


def _bars(
    axis: Any, groups: Sequence[str], values: Values, label: Callable[[float], str], alpha: float = 1
) -> None:
    """Grouped bars that lie, a group under the other, with their numbers behind them."""
    width = 0.8 / len(values)
    for number, (name, row) in enumerate(values.items()):
        at = [group + (number - (len(values) - 1) / 2) * width for group in range(len(groups))]
        bars = axis.barh(at, row, width * 0.9, color=COLOURS[name], alpha=alpha)
        axis.bar_label(bars, [label(value) for value in row], padding=3, fontsize=10)
    axis.set_yticks(range(len(groups)), groups, fontsize=11)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()


def _title(axis: Any, what: str, unit: str) -> None:
    axis.set_title(f"{what}\n", fontsize=12.5, loc="left", weight="bold")
    axis.text(0, 1.02, unit, transform=axis.transAxes, fontsize=10.5, color="#555555")


def _operations(axis: Any, content: dict[str, Any], kind: str, sides: Sequence[str]) -> None:
    """Those that compute or copy: views move no data."""
    central = {
        (row["family"], row["side"]): row["operations_no_views"] / row["sites"]
        for row in content["counted"]
        if row["kind"] == kind and row["change"] == "central"
    }
    families = list(dict.fromkeys(family for family, _ in central))
    _bars(axis, families, {s: [central[f, s] for f in families] for s in sides}, lambda v: f"{v:.0f}")
    _title(axis, "Work", "tensor operations in each attention layer and step")


def _memory(axis: Any, content: dict[str, Any], kind: str, sides: Sequence[str]) -> None:
    rows = [row for row in content["full_size_megabytes_fp16"] if row["kind"] == kind]
    values = {side: [row["peers" if side in PEERS else side] for row in rows] for side in sides}
    _bars(axis, [row["family"] for row in rows], values, _short)
    _title(axis, "Memory", "MB held while sampling, fp16, full-size models")


def _times(axis: Any, content: dict[str, Any], kind: str, sides: Sequence[str]) -> None:
    rows = [row for row in content["timed_ms"] if row["kind"] == kind]
    groups = [f"{row['family']}, {round(row['queries'] ** 0.5)}²" for row in rows]
    values = {side: [row["added"][side] / row["added"]["ours"] for row in rows] for side in sides}
    _bars(axis, groups, values, lambda v: "1" if v == 1 else f"{v:.1f} ×")
    _title(axis, "Time", "added in one attention layer of so many positions; ours = 1")


def _short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def main(source: str, picture: str) -> None:
    draw(json.loads(Path(source).read_text(encoding="utf-8")), Path(picture))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
