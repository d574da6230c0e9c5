"""One picture of a run: what image prompts add to a step of each base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, PLAIN, OTHERS = "#1b7f5c", "#9bbfae", {"older pack": "#c8553d", "diffusers": "#5b7db1"}
TITLE = "What image prompts add to a step (shorter bars are better)"


def draw(content: dict[str, Any], path: Path) -> None:
    """A panel for each base model: per cent added to the base model's own step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = [row for row in content["rows"] if row["what"] == "time" and "ms" in row]
    parts = list(dict.fromkeys(row["part"] for row in times))
    figure, axes = pyplot.subplots(
        1, len(parts), figsize=(5.6 * len(parts) + 0.5, 5.8), squeeze=False, layout="constrained"
    )
    for axis, part in zip(axes[0], parts, strict=True):
        own = [row for row in times if row["part"] == part]
        base = next(row for row in own if row["case"] == "none")
        rows = [row for row in own if not row["case"].endswith("none")]
        _bars(axis, rows)
        axis.set_title(f"{part}\n", fontsize=12.5, loc="left", weight="bold")
        note = f"% of its base step, which takes {base['ms']:.1f} ms here"
        axis.text(0, 1.02, note, transform=axis.transAxes, fontsize=10, color="#555555")
    figure.suptitle(TITLE, x=0.01, ha="left", fontsize=15, weight="bold")
    figure.supxlabel(_caption(content["machine"]), x=0.99, ha="right", fontsize=9, color="#666666")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(axis: Any, rows: list[dict[str, Any]]) -> None:
    added = [100 * (row["of base"] - 1) for row in rows]
    bars = axis.barh(range(len(rows)), added, 0.72, color=[_colour(row["case"]) for row in rows])
    axis.bar_label(bars, [f"{value:+.1f}" for value in added], padding=3, fontsize=9.5)
    axis.set_yticks(range(len(rows)), [row["case"] for row in rows], fontsize=9.5)
    axis.invert_yaxis()
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.tick_params(length=0)
    axis.set_xticks([])
    axis.margins(x=0.18)


def _colour(case: str) -> str:
    side = case.split(":")[0]
    return OTHERS.get(side, PLAIN if "one by one" in case else OURS)


def _caption(machine: dict[str, Any]) -> str:
    known = [machine.get(key) for key in ("device", "torch", "date")]
    return f"Medians of steps that take turns. {', '.join(str(each) for each in known if each)}."
