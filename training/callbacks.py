"""What is called while an adapter is trained: the base class, TensorBoard, signals.

TensorBoard is written by torch's SummaryWriter itself. accelerate's tracker wraps the same one, but it is chosen where the
Accelerator is made, not where a run's callbacks are, and it flushes to the disk at every step.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..ipadapter_core.files.writing import explaining, make_folder
from ..ipadapter_core.packages import load

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """The result of one step. number: of steps done by now. loss: mean over the batches of all processes. seconds: that it
    took. held_out: the loss on pictures that are not trained on, where it was measured."""

    number: int
    steps: int
    loss: float
    lr: float
    seconds: float = 0.0
    held_out: float | None = None


class Callback:
    """Called by the trainer. An exception stops the run; complete steps are saved first."""

    def on_step_end(self, step: Step) -> None: ...
    def on_save(self, path: Path, step: int) -> None: ...

    def close(self) -> None:
        """Once, after the run."""

    @property
    def should_stop(self) -> bool:
        """Whether to stop after this step, and save."""
        return False


class CallbackList(Callback):
    """Several callbacks as one."""

    def __init__(self, *callbacks: Callback):
        self.callbacks = callbacks

    def on_step_end(self, step: Step) -> None:
        for callback in self.callbacks:
            callback.on_step_end(step)

    def on_save(self, path: Path, step: int) -> None:
        for callback in self.callbacks:
            callback.on_save(path, step)

    @property
    def should_stop(self) -> bool:
        return any(callback.should_stop for callback in self.callbacks)


class TensorBoard(Callback):
    """Loss and learning rate for TensorBoard. Raises MissingPackageError, WriteError."""

    def __init__(self, folder: Path, resumed_at: int):
        load("tensorboard")
        # only now: it imports the package
        from torch.utils.tensorboard import SummaryWriter

        self.folder = make_folder(folder / "tensorboard")
        with explaining(self.folder):
            self.writer: Any = SummaryWriter(str(self.folder), purge_step=resumed_at + 1)

    def on_step_end(self, step: Step) -> None:
        with explaining(self.folder):
            self.writer.add_scalar("loss", step.loss, step.number)
            self.writer.add_scalar("learning rate", step.lr, step.number)
            self.writer.add_scalar("seconds a step", step.seconds, step.number)
            if step.held_out is not None:
                self.writer.add_scalar("held-out loss", step.held_out, step.number)

    def on_save(self, path: Path, step: int) -> None:
        with explaining(self.folder):
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Signals(Callback):
    """Ctrl-C and a scheduler's SIGTERM stop the run after the step; a second one at once."""

    def __init__(self) -> None:
        self.received = False

    @property
    def should_stop(self) -> bool:
        return self.received

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        log.info("stopping after this step, with all of it saved; the same again stops at once")

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        """With the handlers of both signals, which are restored at the end."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
