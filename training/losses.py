"""The losses of a run: losses.csv, its plot, and the progress bar with their running mean."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..ipadapter_core.files.writing import explaining, write_bytes, write_text
from ..ipadapter_core.packages import load
from .callbacks import Callback, Step
from .states import set_aside

CSV, PLOT = "losses.csv", "losses.png"
# steps of the running mean: one step's loss depends on its timesteps more than on the weights
SMOOTH = 50
COLOUR = "#1b7f5c"
HEAD = ("step", "loss", "rate")
Row = tuple[int, float, float]


class Losses(Callback):
    """Step, loss and learning rate of every step, appended to losses.csv.

    A resumed run removes the rows of steps that it repeats; a new one renames an earlier run's file.
    """

    def __init__(self, folder: Path, resumed_at: int = 0):
        self.path, self.plot = folder / CSV, folder / PLOT
        found = _read(self.path)
        if found and not resumed_at:
            set_aside(self.path, "earlier")
        self.rows = [row for row in found if row[0] <= resumed_at]
        write_text(self.path, "".join(map(_line, [HEAD, *self.rows])))

    def on_step_end(self, step: Step) -> None:
        self.rows.append((step.number, step.loss, step.lr))
        with explaining(self.path):
            _append(self.path, _line(self.rows[-1]))

    def on_save(self, path: Path, step: int) -> None:
        write_bytes(self.plot, plot_png(self.rows))

    @property
    def mean(self) -> float:
        """Of the last steps."""
        return statistics.fmean(row[1] for row in self.rows[-SMOOTH:])


class ProgressBar(Callback):
    """A line in the terminal: steps, time left, and the mean loss."""

    def __init__(self, steps: int, done: int, losses: Losses):
        self.losses = losses
        self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True)

    def on_step_end(self, step: Step) -> None:
        self.bar.set_postfix(loss=f"{self.losses.mean:.4f}", refresh=False)
        self.bar.update()

    def on_save(self, path: Path, step: int) -> None:
        self.bar.write(f"saved {path}")


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


def _read(path: Path) -> list[Row]:
    """Whole rows only: a run that was killed may leave half of one."""
    found: list[Row] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for row in csv.reader(line.replace("\0", "") for line in file):
                with contextlib.suppress(ValueError):
                    step, loss, lr = row
                    found.append((int(step), float(loss), float(lr)))
    return found


def plot_png(rows: Sequence[Row], size: tuple[float, float] = (8, 4.5)) -> bytes:
    """The losses and their running mean as a PNG. size: inches."""
    matplotlib = load("matplotlib")
    matplotlib.use("Agg")
    figure = load("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    steps, losses = [row[0] for row in rows], [row[1] for row in rows]
    means = [statistics.fmean(losses[max(0, n - SMOOTH + 1) : n + 1]) for n in range(len(losses))]
    axis.plot(steps, losses, color=COLOUR, alpha=0.25, linewidth=0.8, label="each step")
    axis.plot(steps, means, color=COLOUR, linewidth=2, label=f"mean of {SMOOTH} steps")
    axis.set(xlabel="step", ylabel="loss", title="Training loss")
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e4e4e4")
    axis.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def plot_image(rows: Sequence[Row], size: tuple[float, float] = (8, 4.5)) -> Image.Image:
    """The same as a picture."""
    return Image.open(io.BytesIO(plot_png(rows, size))).convert("RGB")
