"""The commands, `python custom_nodes/image-prompt doctor | train | evaluate`, and how their process starts.

This folder becomes a package without registering nodes; ComfyUI's code is brought in where a command needs it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

PACK = "image_prompt"
HERE = Path(__file__).absolute().parent  # unresolved: it may be a link in custom_nodes
NEEDED = ("torch", "safetensors", "einops", "numpy")  # which every ComfyUI has
COMMANDS = {
    "doctor": (
        "doctor.command",
        "say which models are installed and which fit together, and get what is missing",
    ),
    "train": ("training.command", "train an adapter on pictures with captions"),
    "evaluate": ("evaluation.command", "make pictures with workflows, and score them as the paper does"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named first with all that follows. Returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python custom_nodes/image-prompt",
        description="The commands of Image Prompt (IP-Adapter) for ComfyUI. COMMAND --help lists what each takes.",
        epilog="\n".join(f"{name:10}{text}" for name, (_, text) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="of the command")
    given = parser.parse_args(arguments)
    # this folder's `nodes` must not hide the host's
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").absolute() != HERE]
    load_pack()
    try:
        command = importlib.import_module(f"{PACK}.{COMMANDS[given.command][0]}")
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        sys.stderr.write(
            f"{sys.executable} has no {error.name}. Run this with ComfyUI's own Python; of the Windows portable version "
            "that is ..\\python_embeded\\python.exe -s.\n"
        )
        return 1
    return command.main(given.arguments)


def load_pack() -> types.ModuleType:
    """This folder as the package `image_prompt`, without its node registration, which needs ComfyUI."""
    if PACK not in sys.modules:
        package = types.ModuleType(PACK)
        package.__path__ = [str(HERE)]
        sys.modules[PACK] = package
    return sys.modules[PACK]


def find_comfyui(given: Path | None = None) -> Path | None:
    """The folder of ComfyUI: as given, or COMFYUI_PATH, or around this pack, or here. None where it is installed."""
    named = given or (Path(os.environ["COMFYUI_PATH"]) if os.environ.get("COMFYUI_PATH") else None)
    for place in [named] if named else [*HERE.parents, *HERE.resolve().parents, Path.cwd()]:
        if (place / "comfy").is_dir() and (place / "folder_paths.py").is_file():
            return place.absolute()
    return None


def start_comfyui(root: Path | None, cpu: bool = False) -> None:
    """Make `comfy`, `nodes` and `folder_paths` importable. Raises ImportError where there is no ComfyUI."""
    if "comfy.model_management" in sys.modules:
        return
    if root is not None:
        sys.path.insert(0, str(root))
    elif importlib.util.find_spec("comfy") is None:
        raise ImportError(
            "ComfyUI was not found. Put this pack in its custom_nodes, or give its folder with --comfyui PATH."
        )
    import torch

    cli_args = importlib.import_module("comfy.cli_args")
    cli_args.args.cpu = cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    extra = None if root is None else root / "extra_model_paths.yaml"
    if root and extra and extra.is_file() and (root / "utils" / "extra_config.py").is_file():
        importlib.import_module("utils.extra_config").load_extra_path_config(str(extra))


if __name__ == "__main__":
    sys.exit(main())
