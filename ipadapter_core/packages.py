"""Packages that only some users need: imported where they are used, with the line that installs what is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType

from .errors import MissingFileError


def need(purpose: str, packages: Mapping[str, str]) -> None:
    """packages: what pip calls them, by module. Raises MissingFileError with the one pip line for all that is missing.

    purpose: the beginning of the sentence, as 'finding faces needs onnxruntime and OpenCV'.
    """
    failed: dict[str, ImportError] = {}
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed[name] = error
    if failed:
        raise MissingFileError(f"{purpose}, but {_instruction(failed, packages)}")


def load(name: str, purpose: str, packages: Mapping[str, str]) -> ModuleType:
    """A module, or part of one, of these packages."""
    package = name.split(".")[0]
    need(purpose, {package: packages[package]})
    return importlib.import_module(name)


def _instruction(failed: Mapping[str, ImportError], packages: Mapping[str, str]) -> str:
    reasons = ", ".join(
        f"{name} is not installed"
        if isinstance(error, ModuleNotFoundError)
        else f"{name} does not load ({error})"
        for name, error in failed.items()
    )
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    wanted = " ".join(dict.fromkeys(packages[name] for name in failed))
    return f"{reasons}. Run this, then start ComfyUI again: {python} -m pip install {wanted}"
