"""Packages that only some users need: imported where they are used, with the line that installs what is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType

from .errors import MissingPackageError

_FACES = "finding faces needs onnxruntime and OpenCV"
_TRAINING = "training and evaluation need {}"
# By module: what pip calls it, and what needs it. The headless OpenCV has no windows, and so needs no system libraries.
PACKAGES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", _FACES),
    "cv2": ("opencv-python-headless", _FACES),
    "accelerate": ("accelerate", _TRAINING),
    "matplotlib": ("matplotlib", _TRAINING),
    "tensorboard": ("tensorboard", _TRAINING),
    "transformers": ("transformers", _TRAINING),
    "bitsandbytes": ("bitsandbytes", _TRAINING),
    "prodigyopt": ("prodigyopt", _TRAINING),
    "torchmetrics": ("torchmetrics[image]", _TRAINING),
}


def require(*names: str) -> None:
    """Raise MissingPackageError with the one pip line for all that is missing of these modules, which have one purpose."""
    failed: dict[str, ImportError] = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed[name] = error
    if failed:
        purpose = PACKAGES[names[0]][1].format(" and ".join(names))
        raise MissingPackageError(f"{purpose}, but {_instruction(failed)}")


def load(name: str) -> ModuleType:
    """A module of PACKAGES, or a part of one."""
    require(name.split(".")[0])
    return importlib.import_module(name)


def _instruction(failed: Mapping[str, ImportError]) -> str:
    reasons = ", ".join(
        f"{name} is not installed"
        if isinstance(error, ModuleNotFoundError)
        else f"{name} does not load ({error})"
        for name, error in failed.items()
    )
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    wanted = " ".join(dict.fromkeys(PACKAGES[name][0] for name in failed))
    return f"{reasons}. Run this, then start ComfyUI again: {python} -m pip install {wanted}"
