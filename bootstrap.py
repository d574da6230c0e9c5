"""For the commands: this repository as a package, and ComfyUI's code in this process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path

PACK = "image_prompt"
HERE = Path(__file__).absolute().parent  # unresolved: it may be a link in custom_nodes


def load_pack() -> None:
    """This repository as a package, without its node registration, which needs ComfyUI."""
    package = types.ModuleType(PACK)
    package.__path__ = [str(HERE)]
    sys.modules.setdefault(PACK, package)


def run(module: str) -> int:
    """Run the command in this module of the package."""
    # this repository's `nodes`, and modules beside the command, must not hide the host's and others'
    sys.path[:] = [entry for entry in sys.path if not _of_this_pack(Path(entry or ".").absolute())]
    load_pack()
    return importlib.import_module(f"{PACK}.{module}").main()


def _of_this_pack(path: Path) -> bool:
    return path == HERE or (path.parent == HERE and (path / "__main__.py").is_file())


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
    extra = root and root / "extra_model_paths.yaml"
    if extra and extra.is_file() and (root / "utils" / "extra_config.py").is_file():
        importlib.import_module("utils.extra_config").load_extra_path_config(str(extra))
