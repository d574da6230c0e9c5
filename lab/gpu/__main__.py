"""All that waits for a graphics card, in one run of under nine minutes: `python -m lab.gpu --out FOLDER`.

COMFYUI_PATH names a ComfyUI checkout; without it, what `--carry` brought is the host. IPADAPTER_PLUS_PATH names a checkout
of the de-facto pack. Results are written after every part: rows.jsonl, gpu.json, gpu.txt, gpu.png.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..bootstrap import ROOT, pack_module, start_host
from .carry import CARRIED, carry, use_carried
from .plan import BY_NAME, PARTS, ROWS, Part, add_row, run_all, run_sections


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu", help="folder for the results")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --small (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="the same on small models, as the tests do")
    parser.add_argument("--minutes", type=float, default=8.5, help="for all parts (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=BY_NAME, default=[*BY_NAME], metavar="PART")
    parser.add_argument("--carry", action="store_true", help=f"only fill {CARRIED.name}/ for a bare machine")
    parser.add_argument("--one", choices=BY_NAME, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.carry:
        if not os.environ.get("COMFYUI_PATH"):
            sys.exit("COMFYUI_PATH names no ComfyUI checkout, so there is nothing to carry.")
        size = carry(Path(os.environ["COMFYUI_PATH"]), os.environ.get("IPADAPTER_PLUS_PATH"))
        sys.stdout.write(f"{CARRIED}: {size / 2**20:.1f} MB\n")
        return
    use_carried()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.one:
        one(BY_NAME[args.one], args)
        return
    from . import report

    (args.out / ROWS).unlink(missing_ok=True)
    more = ["--device", args.device, *(["--small"] if args.small else [])]
    wanted = [part for part in PARTS if part.name in args.parts]
    run_all(wanted, more, args.out, 60 * args.minutes, lambda: report.write(args.out, args.device))
    sys.stdout.write((args.out / report.TEXT).read_text(encoding="utf-8"))


def one(part: Part, args: argparse.Namespace) -> None:
    start_host(cpu=args.device == "cpu")
    # only now: it imports the host's code
    parts = pack_module("lab.gpu.parts")
    add_row(args.out, {"part": part.name, "what": "machine", **parts.about(part, args.device)})
    run_sections(part.name, parts.sections_of(part, args.device, args.small), args.out)


if __name__ == "__main__":
    sys.exit(main())
