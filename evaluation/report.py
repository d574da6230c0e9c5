"""Scores as Markdown, CSV and a contact sheet of the best and the worst."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..ipadapter_core.errors import shown
from ..ipadapter_core.files.writing import replacing, write_text
from ..ipadapter_core.metrics.published import TABLE_1
from ..ipadapter_core.pictures.sheets import fitting, square
from .about import About, version
from .comparing import comparisons
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


def _number(value: float | None, digits: int = 4) -> str:
    # + 0.0: never '-0.0000'
    return DASH if value is None or value != value else f"{round(value, digits) + 0.0:.{digits}f}"


def _millions(parameters: int | None) -> str:
    if parameters is None:
        return DASH
    return f"{parameters / 1e6:.0f} M" if parameters >= 1e6 else f"{parameters:,}"


def as_markdown(results: Sequence[Result], about: About | None = None) -> str:
    """One row for each method. CLIP-I and CLIP-T are cosines; CLIPScore is what the paper's table calls CLIP-T."""
    head = ["method", "parameters", "references", "pictures", "CLIP-I", "± error"]
    head += ["CLIP-T", "± error", "CLIPScore"]
    extras = list(dict.fromkeys(name for result in results for name in result.extras))
    dino = any(result.summary.dino_i is not None for result in results)
    rows = [[*head, *(["DINO-I", "± error"] if dino else []), *(name.upper() for name in extras)]]
    for result in results:
        s = result.summary
        counts = [_millions(result.parameters), str(s.references), str(s.pictures)]
        image = [_number(s.clip_i), _number(s.clip_i_error)]
        text = [_number(s.clip_t), _number(s.clip_t_error), _number(s.clip_s)]
        other = [_number(s.dino_i), _number(s.dino_i_error)] if dino else []
        more = [_number(result.extras.get(name)) for name in extras]
        rows.append([result.name, *counts, *image, *text, *other, *more])
    line = f"{about.line}\n" if about else f"Captions: {results[0].captions.value}.\n"
    seeds = "".join(f"Seeds of {shown(each.name)}: {each.seeds}.\n" for each in results if each.seeds)
    return (
        f"{line}{seeds}CLIP-I and CLIP-T are cosines, errors are standard errors over references, CLIPScore is "
        f"2.5 · max(cos, 0).\n\n{table(rows)}\n"
    )


def table_1(results: Sequence[Result], about: About | None = None) -> str:
    """The paper's table 1. What was measured here stands behind the paper's row of that name, all others at the end.

    Measured rows are comparable with each other.
    """
    rows = [["method", "trained as", "parameters", "CLIPScore (CLIP-T in the paper)", "CLIP-I"]]
    measured = {result.name: _measured_row(result) for result in results}
    for p in TABLE_1:
        rows.append([p.name, f"{p.kind}, paper", f"{p.millions} M", f"{p.clip_score:.3f}", f"{p.clip_i:.3f}"])
        rows += [measured.pop(p.name)] if p.name in measured else []
    rows += measured.values()
    line = f"{about.line}\n" if about else ""
    return (
        f"{table(rows)}\n\nThe paper's rows: COCO2017 val, 5,000 references, 4 pictures each, CLIP ViT-L/14. CLIPScore is "
        f"2.5 · max(cos, 0); the paper does not say which of COCO's captions it took, here: {results[0].captions.value}.\n"
        f"{line}"
        if results
        else f"{table(rows)}\n"
    )


def _measured_row(result: Result) -> list[str]:
    s = result.summary
    measured = f"here, {s.pictures} pictures of {s.references}"
    return [result.name, measured, _millions(result.parameters), _number(s.clip_s, 3), _number(s.clip_i, 3)]


_MEASURED_WITH = ("dino_i", "clip_model", "prefix", "which", "seeds", "version")


def as_csv(results: Sequence[Result], about: About) -> str:
    """One row for each reference and method, with what it was measured with."""
    rows = [["method", "reference", "pictures", "clip_i", "clip_t", "caption", *_MEASURED_WITH]]
    for result in results:
        for group, score in zip(result.groups, result.scores, strict=True):
            own = [result.name, score.name, str(score.count), _cell(score.clip_i), _cell(score.clip_t)]
            own += [next(iter(group.captions), ""), _cell(score.dino_i)]
            rows.append([*own, *_measured_with(about, result)])
    return _csv(rows)


def pictures_csv(results: Sequence[Result], about: About) -> str:
    """One row for each picture."""
    rows = [["method", "reference", "picture", "clip_i", "clip_t", *_MEASURED_WITH]]
    for result in results:
        for group, score in zip(result.groups, result.scores, strict=True):
            columns = [part or (None,) * score.count for part in (score.images, score.texts, score.dinos)]
            for picture, image, text, dino in zip(group.generated, *columns, strict=True):
                name = str(picture) if isinstance(picture, Path) else ""
                own = [result.name, score.name, name, _cell(image), _cell(text), _cell(dino)]
                rows.append([*own, *_measured_with(about, result)])
    return _csv(rows)


def _measured_with(about: About, result: Result) -> list[str]:
    return [about.clip, about.prefix, about.captions, result.seeds, about.version or version()]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def as_json(results: Sequence[Result], about: About, notes: Sequence[str]) -> str:
    """All figures, for other programs."""
    methods = {
        result.name: {
            **asdict(result.summary),
            "parameters": result.parameters,
            "seeds": result.seeds,
            **result.extras,
        }
        for result in results
    }
    pairs = [
        {"method": first, "other": second, "measure": measure, **asdict(interval)}
        for first, second, measure, interval in comparisons(results)
    ]
    content = {"measured_with": about.to_dict(), "methods": methods, "differences": pairs, "notes": [*notes]}
    return json.dumps(content, indent=1)


def differences(results: Sequence[Result], most: int | None = None) -> str:
    """The differences between methods with their intervals; '' for one method. most: so many lines, else where they are."""
    rows = [["method", "less", "measure", "references", "difference", "95 %", "clear"]]
    for first, second, measure, found in comparisons(results):
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        clear = "yes" if found.clear else "no"
        rows.append([first, second, measure, str(found.count), f"{found.difference:+.4f}", interval, clear])
    if len(rows) == 1:
        return ""
    if most is not None and len(rows) > most:
        return f"Differences between all pairs of methods, {len(rows) - 1} lines with their intervals: in scores.md.\n"
    return (
        "Differences over the references that both have; intervals by the paired bootstrap, clear where 0 is outside:\n\n"
        f"{table(rows)}\n"
    )


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


def write(results: Sequence[Result], folder: Path, about: About, notes: Sequence[str] = ()) -> None:
    """scores.md, scores.csv, pictures.csv, scores.json, table-1.md, and one sheet for each method. notes: lines for the end
    of scores.md.

    Raises WriteError.
    """
    parts = [
        as_markdown(results, about),
        shared_table(results),
        differences(results),
        "".join(f"- {shown(note, 500)}\n" for note in notes),
    ]
    write_text(folder / "scores.md", "\n".join(part for part in parts if part))
    write_text(folder / "scores.csv", as_csv(results, about))
    write_text(folder / "pictures.csv", pictures_csv(results, about))
    write_text(folder / "scores.json", as_json(results, about, notes))
    write_text(folder / "table-1.md", table_1(results, about))
    text = PngInfo()
    text.add_text("measured with", about.line)
    for number, result in enumerate(results):
        taken = {_file_name(other.name) for other in results[:number]}
        name = _file_name(result.name)
        sheet = contact_sheet(result)
        with replacing(
            folder / f"best-and-worst {f'{name} {number + 1}' if name in taken else name}.png"
        ) as part:
            sheet.save(part, "PNG", pnginfo=text)


def _file_name(method: str) -> str:
    """One that every disk accepts."""
    return "".join("-" if char in '<>:"/\\|?*' or not char.isprintable() else char for char in method)[:50]
