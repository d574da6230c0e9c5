"""Trains the toy world: `python -m lab.toy` writes every missing weight file, `--stages` the chosen ones again."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ..bootstrap import ROOT
from . import train_coders, train_diffusion, train_flux
from .config import WEIGHTS
from .fitting import Run, log
from .networks import FILES

# in order: each stage reads the files of the earlier ones
STAGES: dict[str, Callable[[Run], None]] = {
    "vae": train_coders.train_vae,
    "clip": train_coders.train_clip,
    "reader": train_coders.train_reader,
    "base": train_diffusion.train_base,
    "adapter": train_diffusion.train_adapter,
    "control": train_diffusion.train_control,
    "flux": train_flux.train_base,
    "flux-adapter": train_flux.train_adapter,
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lab.toy", description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weight files")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, help="train these again (default: what is missing)"
    )
    parser.add_argument("--steps", type=float, default=1.0, help="factor on every stage's number of steps")
    parser.add_argument(
        "--resume", action="store_true", help="start the chosen stages from their present weights"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=ROOT / "out" / "toy",
        help="folder of interrupted stages, where they go on",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the stages asked for, or those whose file is missing."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    run = Run(args.out, args.steps, args.seed, args.resume, args.state)
    for name in args.stages or [n for n in STAGES if not (args.out / FILES[n]).exists()]:
        torch.manual_seed(args.seed)
        STAGES[name](run)
        log.info("%s: %.2f MB", FILES[name], (args.out / FILES[name]).stat().st_size / 1e6)


if __name__ == "__main__":
    main()
