"""The losses of a run: losses.csv, held-out.csv, their plot, and the progress bar with their running mean."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ..ipadapter_core.files.writing import explaining, replacing, write_bytes
from .callbacks import Callback, Step
from .curve import Curve
from .states import set_aside

CSV, PLOT, HELD_OUT = "losses.csv", "losses.png", "held-out.csv"
HEAD, HELD_OUT_HEAD = ("step", "loss", "rate", "seconds"), ("step", "loss")
Row = tuple[float, ...]


class Losses(Callback):
    """Step, loss, learning rate and seconds of every step, appended to losses.csv; losses on held-out pictures to
    held-out.csv.

    A resumed run removes the rows of steps that it repeats; a new one renames an earlier run's files.
    """

    def __init__(self, folder: Path, resumed_at: int = 0):
        self.path, self.plot, self.held_out = folder / CSV, folder / PLOT, folder / HELD_OUT
        self.curve = Curve()
        for row in _kept(self.path, HEAD, resumed_at):
            self.curve.add(int(row[0]), row[1])
        if self.held_out.is_file():
            rows = _kept(self.held_out, HELD_OUT_HEAD, resumed_at)
            self.curve.held_out = [(int(row[0]), row[1]) for row in rows]

    def on_step_end(self, step: Step) -> None:
        self.curve.add(step.number, step.loss)
        with explaining(self.path):
            _append(self.path, _line((step.number, step.loss, step.lr, f"{step.seconds:.3f}")))
        if step.held_out is not None:
            new = not self.held_out.exists()
            self.curve.held_out.append((step.number, step.held_out))
            with explaining(self.held_out):
                rows = [HELD_OUT_HEAD] * new + [(step.number, step.held_out)]
                _append(self.held_out, "".join(map(_line, rows)))

    def on_save(self, path: Path, step: int) -> None:
        write_bytes(self.plot, self.curve.png())

    @property
    def mean(self) -> float:
        """Of the last steps."""
        return self.curve.mean


class ProgressBar(Callback):
    """A line in the terminal: steps, time left, and the mean loss."""

    def __init__(self, steps: int, done: int, losses: Losses):
        self.losses = losses
        self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True)

    def on_step_end(self, step: Step) -> None:
        shown = {"loss": f"{self.losses.mean:.4f}"}
        if step.held_out is not None:
            shown["held out"] = f"{step.held_out:.4f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_save(self, path: Path, step: int) -> None:
        self.bar.write(f"saved {path}")

    def close(self) -> None:
        self.bar.close()


def _kept(path: Path, head: Sequence[str], resumed_at: int) -> list[Row]:
    """The rows of steps up to this one; the file is left with these alone. A new run's file is empty."""
    if not resumed_at and next(_read(path), None):
        set_aside(path, "earlier")
    rows = [row for row in _read(path) if row[0] <= resumed_at]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(_line(head))
        # what older files lack is no number
        file.writelines(_line((int(row[0]), *row[1:], *["nan"] * (len(head) - len(row)))) for row in rows)
    return rows


def _line(row: Sequence[object]) -> str:
    return ",".join(map(str, row)) + "\n"


def _append(path: Path, line: str) -> None:
    """The whole line or nothing of it."""
    with path.open("ab", buffering=0) as file:
        whole = file.seek(0, io.SEEK_END)
        try:
            if file.write(line.encode()) == len(line):
                return
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(whole)
            raise


def _read(path: Path) -> Iterator[Row]:
    """Whole rows only: a run that was killed may leave half of one. Those of before there were seconds have none."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = (line.replace("\0", "") for line in file if line.endswith("\n"))
        reader = csv.reader(lines)
        columns = len(next(reader, ()))
        for row in reader:
            with contextlib.suppress(ValueError):
                values = tuple(map(float, row))
                if len(values) == columns and values[0] == int(values[0]):
                    yield values
