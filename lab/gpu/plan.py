"""The parts of a run: each in a process of its own, with its share of the time. What one found stays, whatever comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bootstrap import ROOT

ROWS = "rows.jsonl"
RESERVE = 15.0  # seconds that the last writing may take
Row = dict[str, Any]
Sections = Mapping[str, Callable[[], Iterator[Row]]]


@dataclass(frozen=True)
class Part:
    """kind: of what is measured. seconds: that it may take at most."""

    name: str
    kind: str
    family: str
    dtype: str
    seconds: float
    rounds: int = 30


PARTS = (
    Part("SDXL fp16", "steps", "SDXL", "float16", 110),
    Part("Flux bf16", "steps", "Flux", "bfloat16", 110, 12),
    Part("SD1.5 fp16", "steps", "SD1.5", "float16", 70),
    Part("training SD1.5", "training", "SD1.5", "float16", 60),
    Part("training SDXL", "training", "SDXL", "float16", 70),
    Part("compiled SD1.5 fp16", "compiled", "SD1.5", "float16", 150, 20),
    Part("SDXL bf16", "steps", "SDXL", "bfloat16", 90, 15),
)
BY_NAME = {part.name: part for part in PARTS}


def add_row(out: Path, row: Row) -> None:
    """To the end of what is written, at once on the disk."""
    with (out / ROWS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(out: Path) -> list[Row]:
    """All that were written whole."""
    file = out / ROWS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # of a process that was ended in the middle of a line
            continue
    return found


def run_sections(part: str, sections: Sections, out: Path) -> None:
    """One after the other; what a section meets is a row, and the next one goes on."""
    for name, section in sections.items():
        began = time.perf_counter()
        try:
            for row in section():
                add_row(out, {"part": part, **row})
        # a run that is paid by the minute goes on with what works
        except Exception as error:
            add_row(out, {"part": part, "what": "failed", "case": name, "why": _first_lines(error)})
        add_row(
            out, {"part": part, "what": "spent", "case": name, "s": round(time.perf_counter() - began, 1)}
        )


def _first_lines(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:600]


def run_apart(part: Part, command: list[str], out: Path, seconds: float) -> None:
    """A part in a process of its own, which is ended with all that it started when its time is over."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        status = process.wait(seconds)
        why = "" if status == 0 else f"its process ended with status {status}"
    except subprocess.TimeoutExpired:
        why = f"not done after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if why:
        add_row(out, {"part": part.name, "what": "failed", "case": "the part", "why": why})


def run_all(parts: list[Part], more: list[str], out: Path, seconds: float, after: Callable[[], None]) -> None:
    """All parts that the time allows. after: called behind each, and once at the end."""
    end = time.monotonic() + seconds - RESERVE
    for part in parts:
        left = end - time.monotonic()
        if left < min(20.0, part.seconds):
            add_row(out, {"part": part.name, "what": "failed", "case": "the part", "why": "no time was left"})
            continue
        sys.stderr.write(f"{part.name}: at most {min(left, part.seconds):.0f} s\n")
        command = [sys.executable, "-m", "lab.gpu", "--one", part.name, "--out", str(out), *more]
        run_apart(part, command, out, min(left, part.seconds))
        after()
    after()
