"""The two optional packages that face detection needs: onnxruntime and OpenCV, imported when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import packages

ONNXRUNTIME, OPENCV = "onnxruntime", "cv2"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def require(*names: str) -> None:
    """Raise MissingPackageError with the one pip line for all that is missing of these modules, by default of both."""
    packages.require(*(names or (ONNXRUNTIME, OPENCV)))


def available_providers() -> list[str]:
    return list(_module(ONNXRUNTIME).get_available_providers())


def new_session(path: str, providers: Sequence[str]) -> Any:
    """An onnxruntime session that logs errors only; its first provider does the work, the CPU what that one cannot."""
    runtime = _module(ONNXRUNTIME)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(path, options, providers=[*providers])


def resize(picture: Pixels, width: int, height: int) -> Pixels:
    """Bilinear, (H, W, 3) -> (height, width, 3)."""
    return _module(OPENCV).resize(picture, (width, height))


def warp(picture: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    """The affine map (2, 3) of picture onto crop, bilinear, black outside: (H, W, 3) -> (size, size, 3)."""
    return _module(OPENCV).warpAffine(picture, matrix, (size, size), borderValue=0.0)


def _module(name: str) -> Any:
    return packages.load(name)
