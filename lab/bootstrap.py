"""For tests and the laboratory: the pack as a package, and ComfyUI's code on the CPU with exact numbers."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "lab"

_spec = importlib.util.spec_from_file_location("image_prompt_start", ROOT / "__main__.py")
assert _spec is not None
assert _spec.loader is not None
_start = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_start)
pack_package = _start.load_pack


def pack_module(name: str) -> Any:
    """A module of the package `image_prompt`, by its dotted name inside it."""
    return importlib.import_module(f"{pack_package().__name__}.{name}")


# torchvision's compiled operators. Where it was built for another torch, importing it fails because their names are
# unknown; nothing here calls one, so any signature will do.
_TORCHVISION_OPS = """
    nms qnms roi_align qroi_align _roi_align_backward roi_pool _roi_pool_backward ps_roi_align
    _ps_roi_align_backward ps_roi_pool _ps_roi_pool_backward deform_conv2d _deform_conv2d_backward
    box_iou_rotated
"""
_libraries: list[torch.library.Library] = []


def start_host(cpu: bool = True) -> str:
    """Make `comfy`, `nodes` and `folder_paths` importable, by default on the CPU only: a checkout named by COMFYUI_PATH,
    else the installed wheel. Returns its description."""
    # this repository's own `nodes` folder must not hide the host's module of that name
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    if str(LAB) not in sys.path:
        # for `support`
        sys.path.insert(0, str(LAB))
    allow_torchvision()
    path = os.environ.get("COMFYUI_PATH")
    _start.start_comfyui(Path(path) if path else None, cpu=cpu)
    args = importlib.import_module("comfy.cli_args").args
    args.use_pytorch_cross_attention = True
    # CLIP vision in fp32, so that numbers compare
    args.fp32_text_enc = True
    return path or "installed wheel"


def allow_torchvision() -> None:
    """Let torchvision import beside a torch it was not compiled for."""
    if _libraries:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in _TORCHVISION_OPS.split():
            library.define(f"{name}(Tensor x) -> Tensor")
        _libraries.append(library)
        importlib.import_module("torchvision")
