"""The command line of the evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ipadapter_core.metrics.captions import Captions

HERE = Path(__file__).parent
SHIPPED = HERE / "workflows"
# the model of table 1, and that of DINO-I
PAPERS, DINO = "openai/clip-vit-large-patch14", "facebook/dino-vits16"
EXTRAS = ("fid", "kid", "lpips")
DESCRIPTION = (
    "Makes pictures with workflows, scores folders of pictures as the IP-Adapter paper does, and prints its table 1 for "
    "what is installed. `accelerate launch` in the place of `python` spreads the work over GPUs and machines. "
    "Exit status: 0, or how many pictures could not be made (at most 100; run again to go on), or 1 after another error."
)

PICTURES: dict[str, dict[str, Any]] = {
    "--references": {"type": Path, "required": True, "help": "folder of the image prompts"},
    "--captions": {
        "type": Path,
        "help": "COCO captions_*.json, a .jsonl, .json or .csv list, or a folder of .txt files",
    },
    "--out": {"type": Path, "required": True, "help": "folder for the results"},
    "--first": {"type": int, "help": "take only so many references, by name"},
    "--verbose": {"action": "store_true", "help": "show what ComfyUI and libraries say too"},
}
SCORING: dict[str, dict[str, Any]] = {
    "--clip": {
        "default": PAPERS,
        "help": "CLIP model: a folder, or a name on the hub (default: %(default)s)",
    },
    "--device": {
        "default": "auto",
        "help": "where it runs: auto, the GPU where there is one; cpu, cuda, mps (default: %(default)s)",
    },
    "--which": {
        "choices": [each.value for each in Captions],
        "default": Captions.FIRST.value,
        "help": "which of several captions counts (default: %(default)s)",
    },
    "--dino": {
        "nargs": "?",
        "const": DINO,
        "metavar": "MODEL",
        "help": f"measure DINO-I too, with {DINO} or another folder or name",
    },
    "--extras": {
        "nargs": "+",
        "choices": EXTRAS,
        "default": [],
        "help": "other measures, by torchmetrics; their weights are fetched once",
    },
    "--prefix": {"default": "", "help": "before every caption, such as 'A photo depicts '"},
    "--parameters": {
        "action": "append",
        "default": [],
        "metavar": "METHOD=FILE",
        "help": "an adapter file, or a number",
    },
}
MAKING: dict[str, dict[str, Any]] = {
    "--server": {
        "action": "append",
        "default": [],
        "help": "a ComfyUI server; several share the work (else: in process)",
    },
    "--patience": {
        "type": float,
        "default": 3600.0,
        "help": "seconds that a server may take for one picture (default: %(default)s)",
    },
    "--comfyui": {"type": Path, "help": "ComfyUI's folder, for in process"},
    "--cpu": {"action": "store_true", "help": "in process on the processor"},
    "--count": {
        "type": int,
        "default": 4,
        "help": "pictures of each reference (default: %(default)s, as in the paper)",
    },
    "--seed": {"type": int, "default": 0, "help": "of the first picture; the others count on"},
    "--seeds": {
        "choices": ["same", "differ"],
        "default": "same",
        "help": "the same seeds for every reference, or others for each, as in the paper (default: %(default)s)",
    },
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "NODE.INPUT=VALUE",
        "help": "change or mark an input",
    },
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python custom_nodes/image-prompt evaluate", description=DESCRIPTION
    )
    commands = parser.add_subparsers(dest="command", required=True)
    generate = _command(commands, "generate", "make pictures with a workflow", PICTURES, MAKING)
    generate.add_argument(
        "--workflow", type=Path, required=True, help="in API format, with {image}, {text}, {seed}"
    )
    score = _command(commands, "score", "score folders of pictures", PICTURES, SCORING)
    score.add_argument("folders", nargs="+", metavar="METHOD=FOLDER")
    table = _command(commands, "table", "make and score all, and print table 1", PICTURES, SCORING, MAKING)
    table.add_argument(
        "--workflows", type=Path, nargs="*", default=[SHIPPED], help="files or folders (default: shipped)"
    )
    table.add_argument(
        "--folder", action="append", default=[], metavar="METHOD=FOLDER", help="another system's pictures"
    )
    return parser.parse_args(arguments)


def _command(
    commands: Any, name: str, text: str, *groups: dict[str, dict[str, Any]]
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text)
    for group in groups:
        for flag, options in group.items():
            made.add_argument(flag, **options)
    return made
