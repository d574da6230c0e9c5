"""Those who look on while an adapter is trained: a progress bar, the log of losses with its plot, TensorBoard, samples."""

from __future__ import annotations

import csv
import io
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..common.extras import extra
from .loop import Step, Watcher

LOSSES = "losses.csv"
PLOT = "losses.png"
SMOOTH = 50  # steps of the running mean: one step's loss depends on its timesteps more than on the weights
COLOUR = "#1b7f5c"


class Losses(Watcher):
    """step, loss, rate of every step, appended to losses.csv; a resumed run drops what it does again."""

    def __init__(self, folder: Path, resumed_at: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.plot = folder / LOSSES, folder / PLOT
        self.rows = [row for row in _read(self.path) if row[0] <= resumed_at]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("step", "loss", "rate"), *self.rows])

    def stepped(self, step: Step) -> None:
        self.rows.append((step.number, step.loss, step.rate))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(self.rows[-1])

    def saved(self, path: Path, step: int) -> None:
        self.plot.write_bytes(draw(self.rows))

    @property
    def mean(self) -> float:
        """Of the last steps."""
        return statistics.fmean(row[1] for row in self.rows[-SMOOTH:])


def _read(path: Path) -> list[tuple[int, float, float]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["loss"]), float(row["rate"])) for row in csv.DictReader(file)]


def draw(rows: Sequence[tuple[int, float, float]], size: tuple[float, float] = (8, 4.5)) -> bytes:
    """The losses and their running mean as a PNG."""
    matplotlib = extra("matplotlib")
    matplotlib.use("Agg")
    figure = extra("matplotlib.figure").Figure(figsize=size, layout="constrained")
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


def drawn(rows: Sequence[tuple[int, float, float]], size: tuple[float, float] = (8, 4.5)) -> Image.Image:
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
        extra("tensorboard")
        from torch.utils.tensorboard import SummaryWriter  # only now: it imports the package

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1)

    def stepped(self, step: Step) -> None:
        self.writer.add_scalar("loss", step.loss, step.number)
        self.writer.add_scalar("learning rate", step.rate, step.number)

    def saved(self, path: Path, step: int) -> None:
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
