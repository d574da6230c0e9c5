"""How long the first look at a folder of adapters takes: `python -m lab.benchmarks.scan [--files 2000]`.

Released layouts at their full size, sparse on disk. CPU seconds, beside json.loads of the same headers, which is all that a
reader of safetensors must do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bootstrap import ROOT, pack_module


def write_adapters(folder: Path, files: int, shuffled: bool) -> Path:
    """shuffled: no two headers alike; else as one tool writes them: one header for each layout."""
    layouts, outlines = importlib.import_module("support.layouts"), importlib.import_module("core.outlines")
    tables = [layout.table for layout in layouts.LAYOUTS]
    for number in range(files):
        outlines.write_outline(
            folder / f"adapter {number}.safetensors",
            tables[number % len(tables)],
            {"format": "pt"},
            shuffle=number if shuffled else 0,
        )
    return folder


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def parse(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def measure(files: int, shuffled: bool) -> str:
    index = pack_module("model_files.index").Index
    with tempfile.TemporaryDirectory() as made:
        folder = write_adapters(Path(made) / "ipadapter", files, shuffled)
        store = Path(made) / "index.json"
        floor = cpu_seconds(lambda: parse(folder))
        first, later = (cpu_seconds(lambda: index(store).scan({"ipadapter": [folder]})) for _ in range(2))
    what = "no two headers alike" if shuffled else "headers as one tool writes them"
    return f"{files:,} adapters, {what}: first {first:.2f} s, later {later:.2f} s; json.loads {floor:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.benchmarks.scan", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    files = parser.parse_args().files
    sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests")]  # for `support` and `core`
    for shuffled in (False, True):
        print(measure(files, shuffled))


if __name__ == "__main__":
    sys.exit(main())
