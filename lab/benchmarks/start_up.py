"""How soon the commands say something: `python -m lab.benchmarks.start_up [--rounds 5]`, beside `import torch`.

Each in a new process, in turn; medians of wall-clock seconds until the first line, and their ratio to `import torch`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..bootstrap import ROOT

TORCH = "python -c 'import torch'"


def commands(folder: Path) -> dict[str, list[str]]:
    """By what they do. folder: an empty one."""
    train = ["train", "--checkpoint", "sd15.safetensors", "--clip-vision", "vit_h.safetensors"]
    pack = [sys.executable, str(ROOT)]
    return {
        TORCH: [sys.executable, "-c", "import torch; print(torch.__version__)"],
        "doctor, its first line": [*pack, "doctor", "--models", str(folder)],
        "train --help": [*pack, "train", "--help"],
        "train with a typo in a path": [*pack, *train, "--data", str(folder / "no such folder")],
    }


def first_line(command: Sequence[str]) -> tuple[float, str]:
    """Seconds until it, and the line. Its process is ended then."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.kill()
    return seconds, line.strip()


def measure(rounds: int, of: Mapping[str, Sequence[str]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in of}
    for name, command in of.items():
        print(
            f"{name}: {first_line(command)[1]}"
        )  # reads the files from disk, and shows that it is what was meant
    for _ in range(rounds):
        for name, command in of.items():
            found[name].append(first_line(command)[0])
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.benchmarks.start_up", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(parser.parse_args().rounds, commands(Path(folder)))
    print("\n| | seconds | ratio |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| `{name}` | {seconds:.2f} | {seconds / found[TORCH]:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
