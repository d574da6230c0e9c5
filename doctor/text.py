"""The doctor's report as text: a table for terminals, and Markdown."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from ..model_files.catalog import catalog_row
from ..model_files.released import KnownFile
from .report import Goal, Report, Row

HEADS = ("file", "what it is", "family", "encoder it needs", "state")
WIDTH = 110  # columns, at most
_GAP, _NARROWEST = "  ", 6
_NOTHING = "No model files were found."
_FIRST = (
    "To get all that a first picture needs: --goal standard --family SD1.5 --get\n"
    "(other goals and families: --help). Files that you have already belong into models/ipadapter and\n"
    "models/clip_vision, or into folders that extra_model_paths.yaml names; --models names another place."
)


@dataclass(frozen=True)
class Style:
    """How it is written. marks: of good, bad and neutral lines. colours: as ANSI codes of these, '' for none."""

    marks: tuple[str, str, str] = ("✓", "✗", "·")
    colours: tuple[str, str, str] = ("", "", "")

    def mark(self, state: bool | None) -> str:
        number = 2 if state is None else int(not state)
        colour = self.colours[number]
        return f"\033[{colour}m{self.marks[number]}\033[0m" if colour else self.marks[number]


def style_for(stream: TextIO) -> Style:
    """Colours on a terminal that did not refuse them (NO_COLOR); plain letters where the encoding has no signs."""
    terminal = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colours = ("32", "31", "2") if terminal else ("", "", "")
    try:
        "".join(Style().marks).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Style(("+", "x", "."), colours)
    return Style(colours=colours)


def as_text(report: Report, long: bool = False, style: Style | None = None) -> str:
    """A table at most 110 columns wide, then what is broken, the goals and the notes.

    long: addresses and sha256 of what is missing, in place of the option that gets it.
    """
    style = style or Style()
    lines = _table(report.rows, long, style) if report.rows else [_NOTHING, "", _FIRST]
    lines += _section("Broken", report.broken, style.mark(False))
    if report.goals:
        lines += ["", "Goals"]
        for goal in report.goals:
            lines += _goal(goal, long, style)
        lines += [] if long else _how_to_get(report.goals)
    lines += _section("Notes", report.notes, style.mark(None))
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    table = [HEADS, ("---",) * len(HEADS), *(row.cells for row in report.rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table]
    return "\n".join((*(lines if report.rows else [_NOTHING]), *_plain_sections(report)))


def file_line(known: KnownFile) -> str:
    """One released file: name, size, licence where it forbids commercial use, folder."""
    terms = "" if known.commercial else f", {known.licence}"
    return f"{known.name}  ({megabytes(known.megabytes)}{terms})  into models/{known.folder}"


def file_list(files: Sequence[KnownFile], long: bool = False) -> str:
    """A line for each released file: kind, family, name, size, folder; long: with address, licence and sha256."""
    if long:
        return "\n".join(f"{known.kind.value:<12}{known.family:<7}{known.download_hint}" for known in files)
    width = max(len(known.name) for known in files)
    return "\n".join(
        f"{known.kind.value:<12}{known.family:<7}{known.name:<{width}}  {megabytes(known.megabytes):>7}  {known.folder}"
        f"{'' if known.commercial else ', non-commercial'}"
        for known in files
    )


def megabytes(size: float) -> str:
    """848 MB, 5.3 GB."""
    return f"{size / 1000:.1f} GB" if size >= 1000 else f"{size:,.0f} MB"


# --- the table ---------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row], long: bool, style: Style) -> list[str]:
    cells = [_cells(row, long) for row in rows]
    widths = _fitting([HEADS, *cells], WIDTH - 2)
    lines = [f"{_GAP}{line}" for line in _wrapped(HEADS, widths)]
    lines.append(_GAP + _GAP.join("-" * width for width in widths))
    for row, texts in zip(rows, cells, strict=True):
        first, *more = _wrapped(texts, widths)
        lines += [f"{style.mark(_state(row))} {first}", *(f"{_GAP}{line}" for line in more)]
    return lines


def _cells(row: Row, long: bool) -> Sequence[str]:
    """long: with the file of the encoder, which has a line of its own anyway."""
    encoder = row.encoder if long else row.encoder.partition(":")[0]
    return row.file, row.what, row.family, encoder, row.state


def _state(row: Row) -> bool | None:
    return None if row.state == "not used here" else row.state == "ok"


def _fitting(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of the columns: as their longest cell, the widest narrowed until all fit."""
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADS))]
    room = width - len(_GAP) * (len(HEADS) - 1)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _wrapped(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    lines = [[part[n] if n < len(part) else "" for part in parts] for n in range(max(map(len, parts)))]
    return [
        _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


# --- below it ----------------------------------------------------------------------------------------------------


def _section(title: str, items: Sequence[str], mark: str) -> list[str]:
    return ["", title, *(line for item in items for line in _paragraph(mark, item))] if items else []


def _paragraph(mark: str, text: str) -> list[str]:
    first, *more = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{mark} {first}", *(f"  {line}" for line in more)]


def _goal(goal: Goal, long: bool, style: Style) -> list[str]:
    mark = style.mark(goal.ready)
    if goal.ready or long or not goal.needs:
        return _paragraph(mark, f"{goal.goal} on {goal.family}: {_verdict(goal)}")
    needs = [f"    {file_line(catalog_row(name))}" for name in goal.needs]
    return [f"{mark} {goal.goal} on {goal.family} needs", *needs]


def _how_to_get(goals: Sequence[Goal]) -> list[str]:
    lacking = [goal for goal in goals if goal.needs]
    if not lacking:
        return []
    family = "" if len(lacking) == 1 else " and --family, such as " + lacking[0].family + ","
    return ["", f"Add --get{family} to download what is missing; --long shows addresses and sha256."]


def _plain_sections(report: Report) -> list[str]:
    goals = [f"{goal.goal}, {goal.family}: {_verdict(goal)}" for goal in report.goals]
    parts = (("Broken", report.broken), ("Goals", goals), ("Notes", report.notes))
    lines: list[str] = []
    for title, items in parts:
        lines += ["", f"{title}:", *(f"* {item}" for item in items)] if items else []
    return lines


def _verdict(goal: Goal) -> str:
    return f"ready. {goal.text}." if goal.ready else goal.text
