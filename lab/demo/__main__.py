"""The demo, with no download: pictures from pictures, by the pack's nodes in the host's own sampler.

`python -m lab.demo` writes out/demo.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..bootstrap import ROOT, pack_module, start_host

OUT = ROOT / "out" / "demo.png"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=OUT, help="where to write the picture (default: out/demo.png)"
    )
    parser.add_argument(
        "--banner",
        action="store_true",
        help="beside it also banner.png, icon.png and heatmap.png, for the registry and the README",
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help="draw nothing; count over N references what the pictures show"
    )
    parser.add_argument(
        "--thumbnails",
        type=int,
        nargs="*",
        metavar="N",
        help="draw the templates' small pictures in workflows/ instead, all or these",
    )
    parser.add_argument(
        "--transformer",
        action="store_true",
        help="the toy transformer, of Flux.1's layout, instead: out/transformer.png, or its counts",
    )
    return parser.parse_args()


def main() -> None:
    """The demo's pictures, or the templates', or the counts."""
    args = parse()
    out: Path = args.out
    host = start_host()
    # only now: they import the host's code
    names = ("gallery", "banner", "heatmap", "thumbnails", "figures", "studio")
    gallery, banner, heatmap, thumbnails, figures, studio = (
        pack_module(f"lab.demo.{name}") for name in names
    )
    if args.transformer:
        transformer(args)
        return
    models = studio.Studio()
    if args.count:
        print(figures.report(models, args.count))
        return
    if args.thumbnails is not None:
        written = thumbnails.write(models, ROOT / "workflows", args.thumbnails)
        print("wrote", *(path.name for path in written), sep="\n")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    gallery.contact_sheet(models).save(out)
    if args.banner:
        banner.banner(models).save(out.with_name("banner.png"))
        banner.icon(models).save(out.with_name("icon.png"))
        heatmap.picture(models).save(out.with_name("heatmap.png"))
    print(f"ComfyUI: {host}\nwrote {out}")


def transformer(args: argparse.Namespace) -> None:
    """The picture of the toy transformer, or its counts."""
    flux_models, figures, transformers = (
        pack_module(f"lab.{name}") for name in ("toy.flux_models", "demo.figures", "demo.transformers")
    )
    with flux_models.hooked():
        models = transformers.TransformerStudio()
        if args.count:
            print(figures.report_in_short(models, args.count))
            return
        path: Path = args.out.with_name("transformer.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        transformers.contact_sheet(models).save(path, optimize=True)
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
