"""A complete run: measure everything, write the table, the JSON and the plot."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.utils import logging as diffusers_logging

from . import transformers
from .bars import counted_bars, timed_bars
from .cases import cases
from .counted import measure_all
from .machine import host_version, machine
from .plot import draw
from .report import Results, as_dict, text
from .sides import SIDES, present
from .timed import time_all

Item = TypeVar("Item")


def measure(families: Sequence[str], kinds: Sequence[str], rounds: int, device: str, out: Path) -> None:
    """Results go to `out`, the table to standard output too, progress to standard error."""
    diffusers_logging.set_verbosity_error()
    place = torch.device(device)
    rows = list(_with_progress("counted", measure_all(cases(families, kinds))))
    timings = list(_with_progress("timed", time_all(families, kinds, rounds, place)))
    of_transformers = list(_with_progress("transformers", transformers.measure_all(transformers.cases())))
    absent = [side for side in SIDES if side not in present()]
    bars = [*counted_bars(rows), *transformers.bars(of_transformers), *timed_bars(timings)]
    results = Results(machine(host_version(), place, rounds), absent, rows, of_transformers, timings, bars)
    out.mkdir(parents=True, exist_ok=True)
    written = text(results, families, kinds)
    (out / "benchmark.txt").write_text(written, encoding="utf-8")
    content = as_dict(results, families, kinds)
    (out / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(content, out / "benchmark.png")
    sys.stdout.write(f"{written}\nwrote {out}\n")


def _with_progress(what: str, items: Iterable[Item]) -> Iterator[Item]:
    for number, item in enumerate(items, 1):
        sys.stderr.write(f"\r{what}: {number} ")
        sys.stderr.flush()
        yield item
    sys.stderr.write("\n")
