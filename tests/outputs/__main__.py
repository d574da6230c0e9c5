"""Hashes of what the nodes give on small random models, to prove that a change of the code changes no picture.

    OMP_NUM_THREADS=1 python tests/outputs before.json     (on the commit before; the same on the one after)
    python tests/outputs --compare before.json after.json

Hashes compare on one machine and one ComfyUI (COMFYUI_PATH) only: other processors round otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOMS = [TESTS, TESTS.parent / "lab"]  # where the helpers, and the bootstrap, are

# MKL gives the same bits wherever in memory a matrix lies
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")


def main() -> int:
    """0 where all is equal or was written; 1 where outputs differ, are missing or could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("hashes", type=Path, nargs="?", help="the file to write")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--only", default="", help="cases whose names begin so")
    asked = parser.parse_args()
    if asked.compare:
        return compare(*(json.loads(path.read_text(encoding="utf-8")) for path in asked.compare))
    if asked.hashes is None:
        parser.error("name a file to write, or two to compare")
    return write(asked.hashes, asked.only)


def write(path: Path, only: str) -> int:
    sys.path[:1] = [str(room) for room in ROOMS if room.is_dir()]
    hashes, failed = importlib.import_module("outputs.running").run(only)
    path.write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    print(f"{len(hashes)} cases, {len(set(hashes.values()))} different outputs, {failed} failed: {path}")
    return 1 if failed else 0


def compare(before: dict[str, str], after: dict[str, str]) -> int:
    """Prints how many cases are equal, and names the others."""
    both = [name for name in before if name in after]
    others = {
        "differs": [name for name in both if before[name] != after[name]],
        "only before": [name for name in before if name not in after],
        "only after": [name for name in after if name not in before],
    }
    print(f"{len(both) - len(others['differs'])} of {len(before)} cases are equal")
    for what, names in others.items():
        for name in names:
            print(f"{what}: {name}")
    return 1 if any(others.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
