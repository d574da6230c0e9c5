"""Those who look on while an adapter is trained: a progress bar, the log of losses with its plot, TensorBoard, samples."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..ipadapter_core.files.writing import explaining, make_folder, write_bytes, write_text
from ..ipadapter_core.packages import load
from .loop import Step, Watcher
from .states import set_aside

LOSSES = "losses.csv"
PLOT = "losses.png"
SMOOTH = 50  # steps of the running mean: one step's loss depends on its timesteps more than on the weights
COLOUR = "#1b7f5c"


HEAD = ("step", "loss", "rate")
Row = tuple[int, float, float]


class Losses(Watcher):
    """step, loss, rate of every step, appended to losses.csv; a resumed run drops what it does again, and a new one sets
    aside what an earlier one left."""

    def __init__(self, folder: Path, resumed_at: int = 0):
        self.path, self.plot = folder / LOSSES, folder / PLOT
        found = _read(self.path)
        if found and not resumed_at:
            set_aside(self.path, "earlier")
        self.rows = [row for row in found if row[0] <= resumed_at]
        write_text(self.path, "".join(map(_line, [HEAD, *self.rows])))

    def stepped(self, step: Step) -> None:
        self.rows.append((step.number, step.loss, step.rate))
        with explaining(self.path):
            _append(self.path, _line(self.rows[-1]))

    def saved(self, path: Path, step: int) -> None:
        write_bytes(self.plot, draw(self.rows))

    @property
    def mean(self) -> float:
        """Of the last steps."""
        return statistics.fmean(row[1] for row in self.rows[-SMOOTH:])


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
    """What a run that was killed left half of is left out."""
    found: list[Row] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for row in csv.reader(line.replace("\0", "") for line in file):
                with contextlib.suppress(ValueError):
                    step, loss, rate = row
                    found.append((int(step), float(loss), float(rate)))
    return found


def draw(rows: Sequence[Row], size: tuple[float, float] = (8, 4.5)) -> bytes:
    """The losses and their running mean as a PNG."""
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


def drawn(rows: Sequence[Row], size: tuple[float, float] = (8, 4.5)) -> Image.Image:
    """The same as a picture."""
    return Image.open(io.BytesIO(draw(rows, size))).convert("RGB")


class Bar(Watcher):
    """A line in the terminal: steps, time left, and the mean loss."""

    def __init__(self, steps: int, done: int, losses: Losses):
        self.losses = losses
        self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True)

    def stepped(self, step: Step) -> None:
        self.bar.set_postfix(loss=f"{self.losses.mean:.4f}", refresh=False)
        self.bar.update()

    def saved(self, path: Path, step: int) -> None:
        self.bar.write(f"saved {path}")


class Board(Watcher):
    """Loss and learning rate for TensorBoard."""

    def __init__(self, folder: Path, resumed_at: int):
        load("tensorboard")
        from torch.utils.tensorboard import SummaryWriter  # only now: it imports the package

        self.folder = make_folder(folder / "tensorboard")
        with explaining(self.folder):
            self.writer: Any = SummaryWriter(str(self.folder), purge_step=resumed_at + 1)

    def stepped(self, step: Step) -> None:
        with explaining(self.folder):
            self.writer.add_scalar("loss", step.loss, step.number)
            self.writer.add_scalar("learning rate", step.rate, step.number)

    def saved(self, path: Path, step: int) -> None:
        with explaining(self.folder):
            self.writer.flush()


class Signals(Watcher):
    """Ctrl-C and a scheduler's SIGTERM stop the run after the step; a second one at once."""

    def __init__(self) -> None:
        self.heard = False

    @property
    def stopping(self) -> bool:
        return self.heard

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = True

    @contextmanager
    def heeded(self) -> Iterator[Signals]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class All(Watcher):
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher):
        self.watchers = watchers

    def stepped(self, step: Step) -> None:
        for watcher in self.watchers:
            watcher.stepped(step)

    def saved(self, path: Path, step: int) -> None:
        for watcher in self.watchers:
            watcher.saved(path, step)

    @property
    def stopping(self) -> bool:
        return any(watcher.stopping for watcher in self.watchers)
