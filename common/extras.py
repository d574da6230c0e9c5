"""The one door to packages that only training and evaluation need."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..ipadapter_core.errors import MissingFileError

# package as imported -> as pip knows it, and what it is for
EXTRAS = {
    "accelerate": ("accelerate", "training"),
    "transformers": ("transformers", "evaluation with CLIP"),
    "tensorboard": ("tensorboard", "the TensorBoard log"),
    "matplotlib": ("matplotlib", "plots"),
}


def extra(name: str) -> Any:
    """The module; raises MissingFileError with the line that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package, purpose = EXTRAS[name.split(".")[0]]
        raise MissingFileError(
            f"{purpose} needs the package {package}, which is not installed ({error}). Run this, then start again: "
            f"{sys.executable} -m pip install {package}"
        ) from error
