"""The commands, `python custom_nodes/image-prompt doctor | train | evaluate`, and how their process starts.

This folder becomes a package without registering nodes; ComfyUI's code is brought in where a command needs it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path

PACK = "image_prompt"
HERE = Path(__file__).absolute().parent  # unresolved: it may be a link in custom_nodes
NEEDED = ("torch", "safetensors", "einops", "numpy")  # which every ComfyUI has
# of ComfyUI's folders of models, which it still reads
OLDER_NAMES = {"diffusion_models": ("unet",), "text_encoders": ("clip",)}
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
    # without its public names, which bring torch: a command's help waits for nothing
    _bare(f"{PACK}.ipadapter_core", HERE / "ipadapter_core")
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
    try:
        return command.main(given.arguments)
    # Ctrl-C, where a command has nothing to finish first
    except KeyboardInterrupt:
        return 130


def load_pack() -> types.ModuleType:
    """This folder as the package `image_prompt`, without its node registration, which needs ComfyUI."""
    return _bare(PACK, HERE)


def _bare(name: str, folder: Path) -> types.ModuleType:
    """A package whose __init__.py is not run."""
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return sys.modules[name]


def find_comfyui(given: Path | None = None) -> Path | None:
    """The folder of ComfyUI: as given, or COMFYUI_PATH, or around this pack, or here. None where it is installed."""
    named = given or (Path(os.environ["COMFYUI_PATH"]) if os.environ.get("COMFYUI_PATH") else None)
    for place in [named] if named else [*HERE.parents, *HERE.resolve().parents, Path.cwd()]:
        if (place / "comfy").is_dir() and (place / "folder_paths.py").is_file():
            return place.absolute()
    return None


def require_model(root: Path | None, kind: str, name: str) -> None:
    """Raise MissingFileError where a model is neither a file nor in ComfyUI's folders of this kind; nothing is loaded.

    Where ComfyUI is installed as a package its folders are not known before it is started: then it says so itself.
    """
    if root is None or Path(name).is_file():
        return
    folders: list[Path] = []
    for each in (kind, *OLDER_NAMES.get(kind, ())):
        folders += [root / "models" / each, *_extra_folders(root / "extra_model_paths.yaml", each)]
    if not any((folder / name).is_file() for folder in folders):
        found = sorted(str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*.s*"))
        raise _errors().MissingFileError(
            f"the file '{_errors().shown(name)}' is not in {', '.join(map(str, folders))}. Found there: "
            f"{', '.join(map(_errors().shown, found[:8])) or 'nothing'}. Give one of them, or the path of a file."
        )


def _errors() -> types.ModuleType:
    return importlib.import_module(f"{PACK}.ipadapter_core.errors")


def _extra_folders(config: Path, kind: str) -> list[Path]:
    """Folders of a kind that extra_model_paths.yaml adds."""
    try:
        content = importlib.import_module("yaml").safe_load(config.read_bytes()) if config.is_file() else {}
    # what is wrong in it, the host says when it reads it
    except Exception:
        return []
    sections = content.values() if isinstance(content, dict) else ()
    found: list[Path] = []
    for section in (each for each in sections if isinstance(each, dict)):
        base = config.parent / os.path.expandvars(os.path.expanduser(str(section.get("base_path") or "")))
        found += [base / line.strip() for line in str(section.get(kind) or "").splitlines() if line.strip()]
    return found


def start_logging(verbose: bool) -> None:
    """What this pack says, on the terminal; of others errors alone, unless all is wanted."""
    handler = logging.StreamHandler()
    if not verbose:
        handler.addFilter(lambda record: record.name.startswith(PACK) or record.levelno >= logging.ERROR)
        warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    logging.getLogger("accelerate").setLevel(logging.WARNING)


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
