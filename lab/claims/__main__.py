"""Tries the paper's claims in the toy world over several seeds: `python -m lab.claims`. Writes a page with plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..bootstrap import ROOT, pack_module, start_host


def main(arguments: Sequence[str] | None = None) -> None:
    """Trained weights are kept in the folder: an interrupted run resumes."""
    parser = argparse.ArgumentParser(prog="python -m lab.claims", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of the claims to try")
    parser.add_argument("--measured", action="store_true", help="train nothing: draw what has been measured")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "claims")
    args = parser.parse_args(arguments)
    start_host()
    # only now: they import the host's code
    claims, lab, page = (pack_module(f"lab.claims.{name}") for name in ("claims", "lab", "page"))
    words = args.only or [""]
    chosen = [claim for claim in claims.CLAIMS if any(word in claim.name for word in words)]
    here = lab.Lab(args.out / "trained", args.steps)
    found = (claims.what_is_measured if args.measured else claims.try_all)(here, chosen, args.seeds)
    page.write([claim for claim in chosen if claim.name in found], found, args.seeds, args.steps, args.out)


if __name__ == "__main__":
    main()
