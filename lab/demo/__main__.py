"""The demo, with no download: pictures from pictures, by the pack's nodes in the host's own sampler.

`python -m lab.demo` writes out/demo.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..bootstrap import ROOT, pack_module, start_host

OUT = ROOT / "out" / "demo.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=OUT, help="where to write the picture (default: out/demo.png)"
    )
    out: Path = parser.parse_args().out
    host = start_host()
    # only now: both import the host's code
    gallery, studio = (pack_module(f"lab.demo.{name}") for name in ("gallery", "studio"))
    out.parent.mkdir(parents=True, exist_ok=True)
    gallery.contact_sheet(studio.Studio()).save(out)
    print(f"ComfyUI: {host}\nwrote {out}")


if __name__ == "__main__":
    sys.exit(main())
