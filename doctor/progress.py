"""How far a download is: a bar on a terminal, a line at every tenth through a pipe or into a file."""

from __future__ import annotations

import sys

from .text import megabytes
from .transfer import Progress


def shown_progress(name: str) -> Progress:
    """On standard error, from the first bytes on."""
    return _bar(name) if sys.stderr.isatty() else _lines(name)


def _bar(name: str) -> Progress:
    from tqdm import tqdm

    bars: list[tqdm] = []

    def show(done: int, total: int) -> None:
        if not bars:
            # the name ends in what tells such files apart
            bars.append(tqdm(desc=name[-40:], total=total, unit="B", unit_scale=True, dynamic_ncols=True))
        bars[0].update(done - bars[0].n)
        if done >= total:
            bars[0].close()

    return show


def _lines(name: str) -> Progress:
    tenths: list[int] = [-1]

    def show(done: int, total: int) -> None:
        tenth = 10 * done // max(total, done, 1)
        if tenth > tenths[0]:
            tenths[0] = tenth
            sys.stderr.write(f"{name}: {megabytes(done / 1e6)} of {megabytes(total / 1e6)}\n")
            sys.stderr.flush()

    return show
