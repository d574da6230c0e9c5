"""What this process opens and reads meanwhile, counted; and an end to what would never return."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The watched folder, if any, and the files in it that were opened.
_watched: list[Path] = []
_opened: list[str] = []


def _on_open(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched and str(arguments[0]).startswith(str(_watched[0])):
        _opened.append(str(arguments[0]))


# cannot be removed; it acts only while a folder is watched
sys.addaudithook(_on_open)


@contextmanager
def opened_in(folder: Path) -> Iterator[list[str]]:
    """Every file below the folder that this process opens meanwhile, by whatever function."""
    _opened.clear()
    opened: list[str] = []
    _watched.append(folder)
    try:
        yield opened
    finally:
        _watched.clear()
        opened += _opened


@contextmanager
def bytes_read() -> Iterator[list[int]]:
    """By Linux's count: everything that read calls of this process returned. Elsewhere 0; `opened_in` still counts."""
    count: list[int] = []
    before = _bytes_so_far()
    yield count
    count.append(_bytes_so_far() - before)


def _bytes_so_far() -> int:
    counter = Path("/proc/self/io")
    return int(counter.read_text().split()[1]) if counter.exists() else 0


@contextmanager
def ends(seconds: int = 120) -> Iterator[None]:
    """Fails what waits or works for ever. No measure of speed: the limit is far above what the slowest machine takes."""
    if not hasattr(signal, "SIGALRM"):  # Windows: the run's own limit
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"still at work after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
