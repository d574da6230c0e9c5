"""One picture of the results: operations, memory and time of one image prompt, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import Results, megabytes
from .sides import SIDES

COLOURS = {"ours": "#1b7f5c", "de-facto pack": "#c8553d", "diffusers": "#5b7db1", "peers": "#8d8a86"}
TITLE = "What an image prompt costs"
# ms: a difference within the noise may be negative, and has no logarithm
LEAST = 1e-3


def draw(results: Results, families: Sequence[str], kinds: Sequence[str], path: Path) -> None:
    """Three panels, of the 'plus' adapters where they were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    kind = "plus" if "plus" in kinds else kinds[0]
    sides = [side for side in SIDES if side not in results.absent]
    figure, axes = pyplot.subplots(1, 3, figsize=(13.5, 4.6), width_ratios=(1, 1, 1.5), layout="constrained")
    _operations(axes[0], results, families, kind, sides)
    _memory(axes[1], families, kinds)
    _times(axes[2], results, kind, sides)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", length=0)
        axis.set_axisbelow(True)
        axis.grid(axis="y", color="#e4e4e4")
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS[side]) for side in sides]
    figure.legend(handles, sides, loc="outside upper right", ncols=len(sides), frameon=False, fontsize=11)
    figure.suptitle(TITLE, x=0.01, ha="left", fontsize=15, weight="bold")
    figure.supxlabel(_caption(results.machine), x=0.01, ha="left", fontsize=8, color="#666666")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _caption(machine: dict[str, Any]) -> str:
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    return (
        f"{where}, threads: {machine['threads']}, {machine['timed_in']}, torch {machine['torch']}, "
        f"ComfyUI {machine['comfyui']}, medians of {machine['rounds']} interleaved calls, {machine['date']}"
    )


def _bars(axis: Any, groups: Sequence[str], names: Sequence[str], values: dict[str, list[float]]) -> None:
    """Grouped bars with their numbers on top, on a log scale."""
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        at = [group + (number - (len(names) - 1) / 2) * width for group in range(len(groups))]
        bars = axis.bar(at, values[name], width * 0.92, color=COLOURS[name])
        axis.bar_label(bars, [_short(value) for value in values[name]], padding=2, fontsize=8)
    axis.set_xticks(range(len(groups)), groups)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.margins(y=0.08)


def _short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _operations(
    axis: Any, results: Results, families: Sequence[str], kind: str, sides: Sequence[str]
) -> None:
    """Solid: operations that compute or copy; on top, paler, views."""
    central = {
        (row.case.family, row.side): row.per_site
        for row in results.rows
        if row.case.kind == kind and row.case.change == "central"
    }
    width = 0.8 / len(sides)
    for number, side in enumerate(sides):
        at = [group + (number - (len(sides) - 1) / 2) * width for group in range(len(families))]
        every, real = zip(*(central[family, side] for family in families), strict=True)
        axis.bar(at, every, width * 0.92, color=COLOURS[side], alpha=0.35)
        axis.bar(at, real, width * 0.92, color=COLOURS[side])
        for x, top, solid in zip(at, every, real, strict=True):
            axis.text(x, top + 0.4, f"{top:.0f}", ha="center", va="bottom", fontsize=8)
            axis.text(x, solid / 2, f"{solid:.0f}", ha="center", va="center", fontsize=8, color="white")
    axis.set_xticks(range(len(families)), families)
    axis.set_title(
        f"Tensor operations per site and step, {kind}\n(pale: views, which move no data)",
        fontsize=10,
        loc="left",
    )


def _memory(axis: Any, families: Sequence[str], kinds: Sequence[str]) -> None:
    held = megabytes(families, kinds)
    groups = [f"{family}\n{kind}" for family, kind in held]
    values = {name: [pair[name] for pair in held.values()] for name in ("ours", "peers")}
    _bars(axis, groups, ("ours", "peers"), values)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(
        "MB on the device while sampling, fp16, full size\n(grey: de-facto pack and diffusers; log scale)",
        fontsize=10,
        loc="left",
    )


def _times(axis: Any, results: Results, kind: str, sides: Sequence[str]) -> None:
    timings = [timing for timing in results.timings if timing.kind == kind]
    groups = [f"{timing.family}\n{timing.queries}×{timing.width}" for timing in timings]
    _bars(
        axis, groups, sides, {side: [max(timing.added[side], LEAST) for timing in timings] for side in sides}
    )
    axis.tick_params(axis="x", labelsize=9)
    axis.set_title(
        f"ms that one prompt adds at one site, {kind}\n(queries × width, SD1.5 512² and SDXL 1024²; log scale)",
        fontsize=10,
        loc="left",
    )
