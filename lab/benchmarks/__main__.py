"""Measures what an image prompt costs, beside every peer, in one run: `python -m lab.benchmarks`.

COMFYUI_PATH names a ComfyUI checkout, else the installed wheel is the host. IPADAPTER_PLUS_PATH names a checkout of the
de-facto pack; without it that side is reported as absent.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..bootstrap import ROOT, pack_module, start_host

FAMILIES, KINDS = ("SD1.5", "SDXL"), ("base", "plus", "full")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.benchmarks", description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--quick", action="store_true", help="20 timed rounds instead of 200")
    parser.add_argument("--device", default="cpu", help="where sites are timed: cpu or cuda (default: cpu)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    start_host()
    # only now: it imports the host's code
    whole = pack_module("lab.benchmarks.whole")
    whole.measure(args.families, args.kinds, 20 if args.quick else 200, args.device, args.out)


if __name__ == "__main__":
    sys.exit(main())
