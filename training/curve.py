"""The losses of a run as a curve of bounded length: drawing it costs the same after 200 steps and after 200,000."""

from __future__ import annotations

import io
import statistics
from collections import deque
from collections.abc import Sequence

from PIL import Image

from ..ipadapter_core.packages import load

# steps of the running mean: one step's loss depends on its timesteps more than on the weights
SMOOTH = 50
COLOUR, HELD_OUT = "#1b7f5c", "#c2571a"
# of the curve; when there are twice as many, neighbours are joined
POINTS = 1024


class Curve:
    """Losses by step. A point is the mean of 1, 2, 4, ... steps, and the running mean at their end."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float]] = []
        self.held_out: list[tuple[int, float]] = []
        self._each = 1
        self._last: deque[float] = deque(maxlen=SMOOTH)
        self._sum, self._count = 0.0, 0

    def add(self, step: int, loss: float) -> None:
        self._last.append(loss)
        self._sum, self._count = self._sum + loss, self._count + 1
        if self._count == self._each:
            self.points.append((step, self._sum / self._count, self.mean))
            self._sum, self._count = 0.0, 0
        if len(self.points) == 2 * POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(last[0], (first[1] + last[1]) / 2, last[2]) for first, last in pairs]
            self._each *= 2

    @property
    def mean(self) -> float:
        """Of the last steps."""
        return statistics.fmean(self._last)

    def png(self, size: tuple[float, float] = (8, 4.5)) -> bytes:
        """As a PNG. size: inches."""
        matplotlib = load("matplotlib")
        matplotlib.use("Agg")
        figure = load("matplotlib.figure").Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        label = "each step" if self._each == 1 else f"mean of {self._each} steps"
        steps, losses, means = _columns(self.points, 3)
        axis.plot(steps, losses, color=COLOUR, alpha=0.25, linewidth=0.8, label=label)
        axis.plot(steps, means, color=COLOUR, linewidth=2, label=f"mean of {SMOOTH} steps")
        if self.held_out:
            axis.plot(*_columns(self.held_out, 2), "o-", color=HELD_OUT, markersize=4, label="held out")
        axis.set(xlabel="step", ylabel="loss", title="Training loss")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e4e4")
        axis.legend(frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        return file.getvalue()

    def image(self, size: tuple[float, float] = (8, 4.5)) -> Image.Image:
        """The same as a picture."""
        return Image.open(io.BytesIO(self.png(size))).convert("RGB")


def _columns(rows: Sequence[Sequence[float]], count: int) -> list[list[float]]:
    return [[row[n] for row in rows] for n in range(count)]
