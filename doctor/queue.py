"""Downloads that the page asks for: known files only, one after the other, and how far each is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from ..ipadapter_core.errors import ImagePromptError, shown
from ..model_files.catalog import file_named
from ..model_files.released import KnownFile
from .download import download
from .transfer import Progress

_MOST = 64  # names in one request; the catalogue has fewer


@dataclass
class State:
    """Of one download. state: waiting, loading, ready or failed. done, total: bytes. text: why it failed."""

    state: str = "waiting"
    done: int = 0
    total: int = 0
    text: str = ""


class Downloads:
    """A queue with one worker, which starts with the first file. fetch: as `download`, for (file, models, progress)."""

    def __init__(
        self, models: Callable[[], Path], fetch: Callable[[KnownFile, Path, Progress], Any] = download
    ):
        self._models, self._fetch = models, fetch
        self._states: dict[str, State] = {}
        self._waiting: Queue[KnownFile] = Queue()
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, names: Iterable[object]) -> None:
        """Queue these released files; one that waits, runs or is ready already is left as it is.

        Raises nothing for an unknown name: its state says so.
        """
        with self._lock:
            for name in list(names)[:_MOST]:
                self._queue(str(name))

    def _queue(self, name: str) -> None:
        known = file_named(name)
        if known is None or known.name != name:
            self._states[shown(name)] = State(
                "failed", text=f"'{shown(name)}' is no released file that is known here."
            )
            return
        current = self._states.get(name)
        if current and current.state in ("waiting", "loading"):
            return
        self._states[name] = State()
        self._waiting.put(known)
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="image-prompt-downloads", daemon=True)
            self._worker.start()

    def states(self) -> dict[str, dict[str, Any]]:
        """By the file's name, as JSON."""
        with self._lock:
            return {name: asdict(state) for name, state in self._states.items()}

    def join(self) -> None:
        """Wait until nothing is left to do."""
        self._waiting.join()

    def _work(self) -> None:
        while True:
            known = self._waiting.get()
            state = self._states[known.name]
            state.state = "loading"

            def progress(done: int, total: int, state: State = state) -> None:
                state.done, state.total = done, total

            try:
                self._fetch(known, self._models(), progress)
                state.state = "ready"
            except ImagePromptError as error:
                state.state, state.text = "failed", str(error)
            except Exception as error:  # a thread's death would leave all others waiting
                state.state, state.text = "failed", f"{known.name} could not be downloaded ({shown(error)})."
            finally:
                self._waiting.task_done()
