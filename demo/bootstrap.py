"""Brings up ComfyUI's code in this process, on the CPU: a checkout named by COMFYUI_PATH, else the installed wheel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PACK = "image_prompt"

# torchvision's compiled operators. Where its binary part was built for another torch, importing it fails because
# their names are unknown; nothing here calls one, so any signature will do.
_TORCHVISION_OPS = """
    nms qnms roi_align qroi_align _roi_align_backward roi_pool _roi_pool_backward ps_roi_align
    _ps_roi_align_backward ps_roi_pool _ps_roi_pool_backward deform_conv2d _deform_conv2d_backward
    box_iou_rotated
"""
_libraries: list[torch.library.Library] = []


def start_host() -> str:
    """Make `comfy`, `nodes` and `folder_paths` importable, CPU only. Returns which host it is."""
    # this repository's own `nodes` folder must not hide the host's module of that name
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    if path := os.environ.get("COMFYUI_PATH"):
        sys.path.insert(0, path)
    allow_torchvision()
    cli_args = importlib.import_module("comfy.cli_args")
    cli_args.args.cpu = True
    cli_args.args.use_pytorch_cross_attention = True
    cli_args.args.fp32_text_enc = True  # CLIP vision in fp32, so that numbers compare
    return os.environ.get("COMFYUI_PATH", "installed wheel")


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


def pack_package() -> types.ModuleType:
    """This repository as package `image_prompt`, without running its node registration."""
    if PACK not in sys.modules:
        package = types.ModuleType(PACK)
        package.__path__ = [str(ROOT)]
        sys.modules[PACK] = package
    return sys.modules[PACK]
