"""The claims as a page: a table of margins, a plot of what was measured."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..toy.adapter_training import LR
from . import settled
from .claims import BOUNDS, Claim, Found
from .lab import REFERENCES, SLOWER
from .measures import MEANING

HEAD = """# The paper's claims in the toy world

Written by `make claims`. Each claim is tried with the seeds {seeds}{fewer}
and holds if its margin is above 0 with every one. A training is {steps} steps of 32 pictures on the toy world's base model,
by AdamW at {rate:g}, of the whole UNet at {slower:g}. {count} references that no training saw are measured, with empty text
where nothing else is said. CLIP-I is by the toy world's own image encoder.

![What was measured](claims.png)

"""
MEASURES = """
## All that was measured

Means over the seeds. {meaning}.

"""
TOKENS = """
Both kinds of tokens are trained with batches of {batch} until the loss on {held_out} other scenes, at the same noise, falls
by less than {least:.0%} in {span} steps; the averaged weights are measured. The resampler is {width} wide, its projection
is trained at {slower:g}, all else at {rate:g}. Its 16 queries start at random, in the published way, or {wider:g} times as
wide. Two bounds: {copy} is the reference through the VAE; {moved} is
what it shows at a new place, size and angle.

"""
# what the paper says is better, where it holds and where not; the others
HOLDS, FAILS, OTHERS = "#1b7f5c", "#c8553d", "#b9bcc2"
TITLE = "Claims of the paper, tried in the toy world (longer bars are more like the reference)"
CAPTION = (
    "Coloured: what the claim says is better; green where it holds with every seed, red where it does not. "
    "Bars are means over the seeds, dots single seeds. Likeness: cosine of the image embeddings (CLIP-I), 1 is the same."
)
Seeds = Mapping[str, Sequence[Found]]


def write(claims: Sequence[Claim], found: Seeds, seeds: Sequence[int], steps: int, out: Path) -> None:
    """claims.md, claims.png, claims.json."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"seeds": list(seeds), "steps": steps, "measured": found}
    (out / "claims.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "claims.md").write_text(page(claims, found, seeds, steps), encoding="utf-8")
    draw(claims, found, out / "claims.png")


def margins(claim: Claim, found: Seeds) -> list[float]:
    return [claim.margin(each) for each in found[claim.name]]


def page(claims: Sequence[Claim], found: Seeds, seeds: Sequence[int], steps: int) -> str:
    rows = [
        "| claim | paper | holds | margin, mean ± spread | of each seed | margin is |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        values = margins(claim, found)
        holds = "yes" if min(values) > 0 else "**no**"
        each = ", ".join(f"{value:+.3f}" for value in values)
        spread = f" ± {statistics.pstdev(values):.3f}" if len(values) > 1 else ", one seed"
        margin = f"{statistics.fmean(values):+.3f}{spread}"
        rows.append(f"| {claim.name} | {claim.where} | {holds} | {margin} | {each} | {claim.means} |")
    whole = all(len(found[claim.name]) == len(seeds) for claim in claims)
    fewer = "" if whole else ", or with the first of them, as its line says,"
    head = HEAD.format(
        seeds=", ".join(map(str, seeds)), fewer=fewer, steps=steps, count=REFERENCES, rate=LR, slower=SLOWER
    )
    meaning = "; ".join(f"{name}: {what}" for name, what in MEANING.items())
    tables = [line for claim in claims for line in _measured(claim, found[claim.name])]
    return "\n".join([head + "\n".join(rows), MEASURES.format(meaning=meaning) + "\n".join(tables), ""])


def _measured(claim: Claim, seeds: Sequence[Found]) -> list[str]:
    """A table of all measures, and where training until flat is part of it, how."""
    columns = [*dict.fromkeys(name for found in seeds for measures in found.values() for name in measures)]
    about = TOKENS.format(
        batch=settled.BATCH, held_out=settled.HELD_OUT, least=settled.LEAST, span=settled.SPAN * settled.EVERY,
        width=settled.RESAMPLER_WIDTH, slower=SLOWER, rate=LR, wider=settled.ARMS[-1].start, copy=BOUNDS[0],
        moved=BOUNDS[1],
    )  # fmt: skip
    lines = [
        "",
        f"**{claim.name[0].upper()}{claim.name[1:]}**",
        *([about.strip()] if BOUNDS[0] in seeds[0] else []),
        "",
    ]
    lines += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(name for found in seeds for name in found):
        with_it = [found[name] for found in seeds if name in found]
        cells = [
            _cell([each[column] for each in with_it]) if column in with_it[0] else "" for column in columns
        ]
        lines.append(f"| {name}{_fewer(with_it, seeds)} | {' | '.join(cells)} |")
    return lines


def _fewer(with_it: Sequence[object], seeds: Sequence[object]) -> str:
    return "" if len(with_it) == len(seeds) else f" ({len(with_it)} of {len(seeds)} seeds)"


def _cell(values: Sequence[float]) -> str:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    if mean >= 100:
        return f"{mean:,.0f}"
    digits = 1 if mean >= 10 else 4 if mean < 0.05 else 3
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")


def draw(claims: Sequence[Claim], found: Seeds, path: Path) -> None:
    """One panel a claim."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(claims))
    lines = -(-len(claims) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.8 * columns, 3.5 * lines + 1), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(claims) :]:
        axis.axis("off")
    for axis, claim in zip(axes.flat, claims, strict=False):
        _panel(axis, claim, found)
    figure.suptitle(TITLE, x=0.01, ha="left", fontsize=17, weight="bold")
    figure.supxlabel(CAPTION, x=0.01, ha="left", fontsize=11, color="#555555")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _panel(axis: Any, claim: Claim, found: Seeds) -> None:
    measured = found[claim.name]
    names = [*dict.fromkeys(name for each in measured for name in each)]
    holds = min(margins(claim, found)) > 0
    values = [[each[name]["likeness"] for each in measured if name in each] for name in names]
    means = [statistics.fmean(each) for each in values]
    ours = HOLDS if holds else FAILS
    colours = [ours if name in claim.better else OTHERS for name in names]
    axis.barh(range(len(names)), means, height=0.7, color=colours)
    for row in range(len(names)):
        if len(measured) > 1:
            axis.plot(values[row], [row] * len(values[row]), "o", color="#222222", markersize=3.5)
        axis.annotate(f"{means[row]:.2f}", (1.0, row), (4, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", fontsize=11)  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=11)
    axis.set_ylim(max(len(names), 4) - 0.5, -0.5)
    axis.set_xlim(0, 1.02)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=9)
    axis.set_xlabel(claim.axis, fontsize=10, color="#555555")
    title = claim.name[0].upper() + claim.name[1:] + ("" if holds else " (does not hold)")
    axis.set_title(textwrap.fill(title, 34), fontsize=12, loc="right", weight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
