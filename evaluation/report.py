"""Scores as Markdown, CSV and a contact sheet of the best and the worst."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..ipadapter_core.errors import shown
from ..ipadapter_core.files.writing import replacing, write_text
from ..ipadapter_core.metrics.published import TABLE_1
from ..ipadapter_core.pictures.sheets import fitting, square
from .reading import opened
from .scoring import Result, restricted, shared_references

# references at each end of the sheet
ROWS = 6
SIDE, GAP, LINE = 150, 6, 20
DASH = "–"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first row is the head."""
    rows = [[shown(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _number(value: float | None, scale: float = 1.0, digits: int = 4) -> str:
    return DASH if value is None else f"{value * scale:.{digits}f}"


def _millions(parameters: int | None) -> str:
    if parameters is None:
        return DASH
    return f"{parameters / 1e6:.0f} M" if parameters >= 1e6 else f"{parameters:,}"


def as_markdown(results: Sequence[Result]) -> str:
    """One row for each method, in all common scales: cosine, CLIPScore (x 2.5), x 100."""
    head = ["method", "parameters", "references", "pictures", "CLIP-I", "± over references"]
    head += ["CLIP-T cosine", "x 2.5", "x 100", "± over references"]
    rows = [head]
    for result in results:
        s = result.summary
        counts = [_millions(result.parameters), str(s.references), str(s.pictures)]
        image = [_number(s.clip_i), _number(s.clip_i_spread)]
        text = [_number(s.clip_t), _number(s.clip_s), _number(s.clip_t, 100, 2), _number(s.clip_t_spread)]
        rows.append([result.name, *counts, *image, *text])
    return f"Captions: {results[0].captions.value}.\n\n{table(rows)}\n"


def table_1(results: Sequence[Result]) -> str:
    """The paper's table 1 with what was measured here below it. Measured rows are comparable with each other."""
    rows = [["method", "trained as", "parameters", "CLIP-T", "CLIP-I"]]
    rows += [
        [p.name, f"{p.kind}, paper", f"{p.millions} M", f"{p.clip_t:.3f}", f"{p.clip_i:.3f}"] for p in TABLE_1
    ]
    for result in results:
        s = result.summary
        measured = f"here, {s.pictures} pictures of {s.references}"
        rows.append(
            [
                result.name,
                measured,
                _millions(result.parameters),
                _number(s.clip_s, 1, 3),
                _number(s.clip_i, 1, 3),
            ]
        )
    return (
        f"{table(rows)}\n\nThe paper's rows: COCO2017 val, 5,000 references, 4 pictures each, CLIP ViT-L/14. CLIP-T is "
        f"2.5 · max(cos, 0); the paper does not say which of COCO's captions it took, here: {results[0].captions.value}.\n"
        if results
        else f"{table(rows)}\n"
    )


def as_csv(results: Sequence[Result]) -> str:
    """One row for each reference and method."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "reference", "pictures", "clip_i", "clip_t", "caption"])
    for result in results:
        for group, score in zip(result.groups, result.scores, strict=True):
            clip_t = "" if score.clip_t is None else f"{score.clip_t:.6f}"
            row = [result.name, score.name, score.count, f"{score.clip_i:.6f}", clip_t]
            writer.writerow([*row, next(iter(group.captions), "")])
    return file.getvalue()


def contact_sheet(result: Result, most: int = ROWS) -> Image.Image:
    """The references most similar to their pictures on the left, the least similar on the right, each with its pictures."""
    order = sorted(range(len(result.scores)), key=lambda n: -result.scores[n].clip_i)
    half = min(most, (len(order) + 1) // 2)
    sides = {"best": order[:half], "worst": order[::-1][: min(half, len(order) - half)]}
    columns = 1 + min(4, max(len(group.generated) for group in result.groups))
    width = columns * (SIDE + GAP) + 3 * GAP
    font = ImageFont.load_default(13)
    height = 2 * LINE + max(map(len, sides.values())) * (SIDE + LINE + GAP)
    sheet = Image.new("RGB", (width * (2 if sides["worst"] else 1), height), "white")
    pen = ImageDraw.Draw(sheet)
    for side, (title, numbers) in enumerate(sides.items()):
        left = side * width + 2 * GAP
        if numbers:
            pen.text(
                (left, GAP),
                f"{shown(result.name, 60)}: {title} by CLIP-I",
                fill="black",
                font=ImageFont.load_default(15),
            )
        for row, number in enumerate(numbers):
            top = 2 * LINE + row * (SIDE + LINE + GAP)
            group, score = result.groups[number], result.scores[number]
            for column, path in enumerate((group.reference, *group.generated[: columns - 1])):
                sheet.paste(square(opened(path), SIDE), (left + column * (SIDE + GAP), top))
            clip_t = "" if score.clip_t is None else f", CLIP-T {score.clip_t:.3f}"
            caption = shown(next(iter(group.captions), ""))
            line = f"{shown(group.name)}: CLIP-I {score.clip_i:.3f}{clip_t}   {caption}"
            pen.text((left, top + SIDE + 3), fitting(line, font, width - 3 * GAP), fill="#444444", font=font)
    return sheet


def shared_table(results: Sequence[Result]) -> str:
    """The same scores over the references that all methods have; '' where all have the same."""
    names = shared_references(results)
    if all(len(result.groups) == len(names) for result in results):
        return ""
    if not names:
        return "The methods have no reference in common: their rows do not compare.\n"
    rows = as_markdown([restricted(result, names) for result in results])
    return f"Over the {len(names)} references that all methods have, so that rows compare:\n\n{rows}"


def write(results: Sequence[Result], folder: Path, notes: Sequence[str] = ()) -> None:
    """scores.md, scores.csv, table-1.md, and one sheet for each method. notes: lines for the end of scores.md.

    Raises WriteError.
    """
    parts = [
        as_markdown(results),
        shared_table(results),
        "".join(f"- {shown(note, 500)}\n" for note in notes),
    ]
    write_text(folder / "scores.md", "\n".join(part for part in parts if part))
    write_text(folder / "scores.csv", as_csv(results))
    write_text(folder / "table-1.md", table_1(results))
    for number, result in enumerate(results):
        taken = {_file_name(other.name) for other in results[:number]}
        name = _file_name(result.name)
        sheet = contact_sheet(result)
        with replacing(
            folder / f"best-and-worst {f'{name} {number + 1}' if name in taken else name}.png"
        ) as part:
            sheet.save(part, "PNG")


def _file_name(method: str) -> str:
    """One that every disk accepts."""
    return "".join("-" if char in '<>:"/\\|?*' or not char.isprintable() else char for char in method)[:50]
