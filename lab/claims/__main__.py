"""Tries the paper's claims in the toy world over several seeds: `python -m lab.claims`. Writes a page with plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..bootstrap import ROOT, pack_package, start_host


def main(arguments: Sequence[str] | None = None) -> None:
    """What was trained is kept in the folder: a run that is broken off goes on."""
    parser = argparse.ArgumentParser(prog="python -m lab.claims", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], help="words of the names of claims")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "claims")
    args = parser.parse_args(arguments)
    start_host()
    pack_package()
    # only now: they import the host's code
    from image_prompt.lab.claims.claims import CLAIMS, try_all
    from image_prompt.lab.claims.lab import Lab
    from image_prompt.lab.claims.page import write

    chosen = [claim for claim in CLAIMS if not args.only or any(word in claim.name for word in args.only)]
    lab = Lab(args.out / "trained", args.steps)
    write(chosen, try_all(lab, chosen, args.seeds), args.seeds, args.steps, args.out)


if __name__ == "__main__":
    main()
