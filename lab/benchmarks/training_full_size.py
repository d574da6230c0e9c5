"""A run at full size beside a loop in the published way (tutorial_train.py of the reference), one process after the other:
seconds a step, the first step, peak memory.

    python -m lab.benchmarks.training_full_size --comfyui DIR --checkpoint FILE --clip-vision FILE --data FOLDER

The published side has the same sizes with random weights, by diffusers and transformers: all models stay loaded in fp32,
and each picture is encoded each time it is shown. Full-size models with random weights do, as nothing depends on values.
"""

from __future__ import annotations

import argparse
import csv
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..bootstrap import ROOT

BATCH = 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab.benchmarks.training_full_size",
        description="A run at full size beside a loop in the published way.",
    )
    parser.add_argument("--comfyui", help="ComfyUI's folder")
    parser.add_argument("--checkpoint", help="an SD1.5 checkpoint")
    parser.add_argument("--clip-vision", help="ViT-H")
    parser.add_argument("--data", required=True, help="folder of pictures with captions")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[*SIDES])
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def ours(args: argparse.Namespace) -> list[float]:
    """Seconds of each step, by the command."""
    with TemporaryDirectory() as folder:
        given = {
            "--checkpoint": args.checkpoint, "--clip-vision": args.clip_vision, "--data": args.data, "--out": folder,
            "--size": args.size, "--steps": args.steps, "--batch-size": BATCH, "--every": 0, "--unet": "fp32",
        }  # fmt: skip
        more = ["--comfyui", args.comfyui] if args.comfyui else []
        flags = [str(part) for pair in given.items() for part in pair]
        subprocess.run([sys.executable, str(ROOT), "train", *flags, "--cpu", *more], check=True)
        with (Path(folder) / "losses.csv").open() as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)]


def published(args: argparse.Namespace) -> list[float]:
    """The same steps, as the published code takes them; written from its description, on the package's processors."""
    import torch

    from ..support.published_models import Published

    torch.manual_seed(0)
    models = Published(args.size)
    parameters = models.trained_parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01)
    files = sorted(path for path in Path(args.data).iterdir() if path.suffix in (".png", ".jpg"))
    found = []
    for step in range(args.steps):
        began = time.perf_counter()
        loss = models.loss(files[step % len(files)])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(time.perf_counter() - began)
    return found


SIDES: dict[str, Any] = {"here": ours, "published": published}


def run(side: str) -> tuple[list[float], float]:
    """(seconds of each step, peak memory in GB) of one side in a process of its own."""
    done = subprocess.Popen(
        [sys.executable, "-m", "lab.benchmarks.training_full_size", *sys.argv[1:], "--one", side],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    out, _ = done.communicate()
    *_, seconds, peak = out.strip().splitlines()
    return [float(each) for each in seconds.split()], float(peak)


def main() -> None:
    args = arguments()
    if args.one:
        seconds = SIDES[args.one](args)
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak = max(resource.getrusage(each).ru_maxrss for each in who) / 2**20
        sys.stdout.write(f"{' '.join(f'{each:.3f}' for each in seconds)}\n{peak:.2f}\n")
        return
    count = len([path for path in Path(args.data).iterdir() if path.suffix in (".png", ".jpg")])
    lines = ["| | first step | first epoch, a step | later, a step | peak |", "|---|---|---|---|---|"]
    for side in args.sides:
        seconds, peak = run(side)
        first, later = statistics.median(seconds[:count]), statistics.median(seconds[count:])
        lines.append(f"| {side} | {seconds[0]:.1f} s | {first:.1f} s | {later:.1f} s | {peak:.2f} GB |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
