"""The claims as a page: a table of margins, a plot of what was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..toy.adapter_training import LR
from .claims import Claim, Numbers
from .lab import REFERENCES, SLOWER

HEAD = """# The paper's claims in the toy world

Written by `make claims`. Each claim is tried with the seeds {seeds} and holds if its margin is above 0 with every one.
Every training is {steps} steps of 32 pictures on the toy world's base model, by AdamW at {rate:g}, of the resampler and of
the whole UNet at {slower:g}. CLIP-I is by the toy world's own image encoder, over {count} references that no training saw;
the text is empty where nothing else is said.

![What was measured](claims.png)

"""
HOLDS, FAILS = "#1b7f5c", "#c8553d"


def write(
    claims: Sequence[Claim],
    found: Mapping[str, Sequence[Numbers]],
    seeds: Sequence[int],
    steps: int,
    out: Path,
) -> None:
    """claims.md, claims.png, claims.json."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"seeds": list(seeds), "steps": steps, "measured": found}
    (out / "claims.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "claims.md").write_text(page(claims, found, seeds, steps), encoding="utf-8")
    draw(claims, found, out / "claims.png")


def margins(claim: Claim, found: Mapping[str, Sequence[Numbers]]) -> list[float]:
    return [claim.margin(numbers) for numbers in found[claim.name]]


def page(
    claims: Sequence[Claim], found: Mapping[str, Sequence[Numbers]], seeds: Sequence[int], steps: int
) -> str:
    rows = [
        "| claim | paper | holds | margin, mean ± spread | of each seed | margin is |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        values = margins(claim, found)
        holds = "yes" if min(values) > 0 else "**no**"
        each = ", ".join(f"{value:+.3f}" for value in values)
        spread = statistics.pstdev(values)
        margin = f"{statistics.fmean(values):+.3f} ± {spread:.3f}"
        rows.append(f"| {claim.name} | {claim.where} | {holds} | {margin} | {each} | {claim.means} |")
    head = HEAD.format(
        seeds=", ".join(map(str, seeds)), steps=steps, count=REFERENCES, rate=LR, slower=SLOWER
    )
    return head + "\n".join(rows) + "\n"


def draw(claims: Sequence[Claim], found: Mapping[str, Sequence[Numbers]], path: Path) -> None:
    """One panel a claim: bars are means over seeds, dots single seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(claims))
    lines = -(-len(claims) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.6 * lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(claims) :]:
        axis.axis("off")
    for axis, claim in zip(axes.flat, claims, strict=False):
        _panel(axis, claim, found)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axis: Any, claim: Claim, found: Mapping[str, Sequence[Numbers]]) -> None:
    measured = found[claim.name]
    names = list(measured[0])
    holds = min(margins(claim, found)) > 0
    means = [statistics.fmean(numbers[name] for numbers in measured) for name in names]
    axis.barh(range(len(names)), means, color=HOLDS if holds else FAILS, alpha=0.75)
    for row, name in enumerate(names):
        axis.plot(
            [numbers[name] for numbers in measured],
            [row] * len(measured),
            "o",
            color="#222222",
            markersize=3.5,
        )
        axis.annotate(f"{means[row]:.2f}", (1.0, row), (4, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.02)
    words = claim.name.split()
    half = (len(words) + 1) // 2
    title = f"{' '.join(words[:half])}\n{' '.join(words[half:])}"
    axis.set_title(f"{title}{'' if holds else ' (does not hold)'}", fontsize=9.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
