"""What a bare machine needs beside this folder, copied into one that git ignores: source alone, and small."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / "build" / "gpu"
COMFYUI, OLDER, SITE = "comfyui", "older-pack", "site"
# of the host's folder; pictures, models and the page stay behind
HOST_PARTS = (
    "comfy",
    "comfy_execution",
    "comfy_api",
    "utils",
    "app",
    "folder_paths.py",
    "comfyui_version.py",
)
HOST_PARTS += (
    "node_helpers.py",
    "nodes.py",
    "comfy_extras",
    "cuda_malloc.py",
    "latent_preview.py",
    "protocol.py",
)
ENDINGS = (".py", ".json", ".yaml", ".so")
LARGEST = (
    2 * 2**20
)  # bytes of a file: larger are vocabularies and kernels for quantised models, which nothing here calls
# that machines with PyTorch may lack; those that are not installed here stay behind
PACKAGES = ("torchsde", "trampoline", "comfy_kitchen", "comfy_aimdo", "diffusers", "importlib_metadata")


def carry(comfyui: Path, older: str | None) -> int:
    """Fill the folder anew. Returns its bytes."""
    shutil.rmtree(CARRIED, ignore_errors=True)
    for name in HOST_PARTS:
        _copy(comfyui / name, CARRIED / COMFYUI / name)
    if older:
        _copy(Path(older), CARRIED / OLDER)
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            _copy(Path(folder), CARRIED / SITE / name)
            for about in Path(folder).parent.glob(f"{name}-*.dist-info"):
                shutil.copytree(about, CARRIED / SITE / about.name, dirs_exist_ok=True)
    return sum(path.stat().st_size for path in CARRIED.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    for path in _sources(source):
        to = target / path.relative_to(source) if source.is_dir() else target
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


def _sources(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    for path in source.rglob("*"):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(source).parts)
        fits = path.is_file() and path.suffix in ENDINGS and path.stat().st_size <= LARGEST
        if fits and not hidden:
            yield path


def use_carried() -> None:
    """The carried host and packages, where no others are there. Processes that this one starts take them too."""
    for variable, folder in (("COMFYUI_PATH", COMFYUI), ("IPADAPTER_PLUS_PATH", OLDER)):
        if not os.environ.get(variable) and (CARRIED / folder).is_dir():
            os.environ[variable] = str(CARRIED / folder)
    site = str(CARRIED / SITE)
    if (CARRIED / SITE).is_dir() and site not in sys.path:
        sys.path.append(site)  # last: what is installed goes first
