"""How training grows with the number of pictures: `python -m lab.benchmarks.training_data --rows 10000 100000 1000000`.

Rows are synthetic: their records are made, no file is written. What is measured: making records and their plan, a batch's
row out of the cache, an epoch's order, the loss plot, and memory for each record; with the slope of each over the rows, as
the exponent of the number of rows (0: constant, 1: linear).
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..bootstrap import ROOT, pack_module

ROUNDS = 50
SIZES = [(512, 512), (640, 384), (384, 640)]


def records(count: int) -> Iterator[Callable[[], Any]]:
    """Functions that make a record each, as a folder of captioned pictures gives them."""
    module = pack_module("training.records")
    folder = Path("/data/pictures")
    for number in range(count):
        name = f"part-{number // 10_000:04d}/picture-{number:08d}.jpg"
        caption = f"a photograph of thing {number % 9973} beside another one in the evening light"
        key = f"{folder / name}|(123456, {1_700_000_000_000_000_000 + number})"
        yield lambda n=name, c=caption, k=key: module.Record(n, c, k, module.Place(folder / n))


class Base:
    """Encoders of which only the shapes matter."""

    def texts(self, captions: list[str]) -> Any:
        return pack_module("ipadapter_core.training.base").Texts(torch.zeros(len(captions), 77, 768), None)

    def no_features(self, kind: Any) -> torch.Tensor:
        return torch.zeros(1, 1024)

    def features(self, kind: Any, *pictures: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pictures), 1024)

    def latents(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pictures), 4, *(side // 8 for side in pictures.shape[1:3]))


class Everything(dict[str, Any]):
    """A cache in which each picture's encodings are."""

    rows: dict[str, torch.Tensor]

    def get(self, key: str, default: Any = None) -> Any:
        return self.rows


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def timed(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median seconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measured(count: int) -> dict[str, float]:
    """Seconds of each part, and bytes of a record."""
    pictures_module, encoded = pack_module("training.pictures"), pack_module("training.encoded")
    config = pack_module("ipadapter_core.training.config").TrainingConfig(batch_size=8)
    batches = pack_module("ipadapter_core.training.batches")
    # no file is there: sizes come by turns
    turns = iter(SIZES * (count // len(SIZES) + 1))
    pictures_module._size = lambda read: next(turns)
    before, began = resident(), time.perf_counter()
    pictures = pictures_module.Pictures.made_by(records(count))
    start, memory = time.perf_counter() - began, resident() - before
    store = Everything()
    data = encoded.Encodings(Base(), config, pictures, SIZES, store)
    store.rows = {
        "latents": torch.zeros(1, 4, 64, 64),
        "features": torch.zeros(1, 1024),
        "context": torch.zeros(1, 77, 768),
    }
    began = time.perf_counter()
    sampler = batches.BatchSampler(config, [crop.bucket for crop in data.crops], 8)
    plan = time.perf_counter() - began
    numbers = iter(range(10**9))
    order = timed(lambda: sampler._shuffled(next(numbers)), 3)
    sampler.batch(0)
    batch = timed(lambda: data.batch(sampler.batch(next(numbers) % sampler.length)[:8]))
    return {
        "records, with their sizes": start,
        "the plan of the batches": plan,
        "an epoch's order": order,
        "a batch of 8 out of the cache": batch,
        "bytes of a record": memory / count,
    }


def plot_seconds(steps: int) -> float:
    """The loss plot after so many steps."""
    curve = pack_module("training.curve").Curve()
    for step in range(steps):
        curve.add(step, 0.1)
    return timed(curve.png, 3)


def slope(rows: list[int], values: list[float]) -> float:
    """The exponent of the number of rows, by least squares of logarithms."""
    x, y = [math.log(n) for n in rows], [math.log(max(value, 1e-9)) for value in values]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def table(rows: list[int], found: list[dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(f"{n:,}" for n in rows) + " | slope |", "|---" * (len(rows) + 2) + "|"]
    for name in found[0]:
        values = [each[name] for each in found]
        unit = "{:.0f}" if name.startswith("bytes") else "{:.4f} s"
        cells = " | ".join(unit.format(value) for value in values)
        lines.append(f"| {name} | {cells} | {slope(rows, values):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.benchmarks.training_data", description=__doc__)
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = table(args.rows, [measured(count) for count in args.rows])
    steps = (200, 20_000, 200_000)
    plots = " | ".join(f"{plot_seconds(n):.2f} s after {n:,}" for n in steps)
    text += f"\n\nThe loss plot: {plots} steps.\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "training-data.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
