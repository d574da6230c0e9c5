"""An ONNX file that runs: a function from one input to all outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, SettingError, shown
from .runtime import Floats, available_providers, new_session

Run = Callable[[Floats], list[Floats]]

# By the name in the menu: onnxruntime's name.
PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "ROCM": "ROCMExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
}
_log = logging.getLogger(__name__)


def execution_provider(name: str) -> str:
    """'CUDA' -> 'CUDAExecutionProvider'. Raises SettingError if this onnxruntime lacks it."""
    available = available_providers()
    if PROVIDERS.get(name) not in available:
        usable = [short for short, full in PROVIDERS.items() if full in available]
        raise SettingError(
            f"provider '{name}' is not in the installed onnxruntime; it has {', '.join(usable)}. Choose one of these, "
            "or install the onnxruntime package for your device (onnxruntime-gpu has CUDA, onnxruntime-directml "
            "DirectML) in place of onnxruntime."
        )
    return PROVIDERS[name]


def open_session(path: Path, input_name: str, provider: str) -> Run:
    """An inference session on a provider of PROVIDERS. Raises CheckpointError if onnxruntime refuses the file."""
    chosen = execution_provider(provider)
    try:
        session = new_session(str(path), list(dict.fromkeys((chosen, PROVIDERS["CPU"]))))
    # onnxruntime's classes have no base of their own
    except Exception as error:
        reason = shown(" ".join(str(error).split()))
        raise CheckpointError(
            f"onnxruntime does not open {shown(path.name)}: {reason}. If the file is damaged, download it again."
        ) from error
    if chosen not in session.get_providers():
        _log.warning(
            "provider %s did not start (see onnxruntime's message above); faces run on the CPU", provider
        )
    return partial(_run, session, input_name, path.name)


def _run(session: Any, input_name: str, name: str, values: Floats) -> list[Floats]:
    try:
        return session.run(None, {input_name: values})
    except Exception as error:
        raise CheckpointError(
            f"{shown(name)} does not run ({shown(' '.join(str(error).split()))}). If the file is damaged, download it again."
        ) from error
