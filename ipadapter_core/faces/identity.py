"""ArcFace (arXiv 1801.07698): a face -> an aligned crop -> its embedding (512,)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .graphs import EMBEDDING, RecogniserSpec
from .runtime import Floats, Pixels, warp

# Eyes, nose and mouth corners in a crop of 112 x 112 pixels (insightface, utils/face_align.py).
ARCFACE = np.array(
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
    np.float32,
)


def template(size: int) -> Floats:
    """Key points (5, 2) of an aligned crop. Multiples of 112 are filled by the face, others have a margin at the
    sides, as 128 has."""
    if size % 112 == 0:
        return ARCFACE * np.float32(size / 112)
    ratio = np.float32(size / 128)
    return ARCFACE * ratio + np.array((8 * ratio, 0), np.float32)


def similarity_transform(
    points: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """(2, 3): rotation, one scale and shift that bring points (n, 2) nearest to target (n, 2), least squares.

    Umeyama, PAMI 1991, eq. 38-43. No reflection, even where the points are mirrored.
    """
    mean, target_mean = points.mean(0), target.mean(0)
    spread = points - mean
    covariance = (target - target_mean).T @ spread / len(points)
    u, singular, v = np.linalg.svd(covariance)
    signs = np.array((1.0, -1.0 if np.linalg.det(u) * np.linalg.det(v) < 0 else 1.0))
    rotation = u @ np.diag(signs) @ v
    scale = 1.0 / spread.var(0).sum() * (singular @ signs)
    shift = target_mean - scale * (rotation @ mean)
    return np.concatenate((scale * rotation, shift[:, None]), axis=1).astype(np.float64)


def align(picture: Pixels, key_points: Floats, size: int) -> Pixels:
    """The face of a picture (H, W, 3), upright: (size, size, 3), black where the picture ends."""
    return warp(picture, similarity_transform(key_points, template(size)), size)


@dataclass(frozen=True)
class Recogniser:
    """spec: of its graph. run: inference on (1, 3, size, size)."""

    spec: RecogniserSpec
    run: Callable[[Floats], list[Floats]]

    def embed(self, picture: Pixels, key_points: Floats) -> Floats:
        """The embedding (512,) of a face of a picture (H, W, 3) RGB, 0..255, not normalised."""
        crop = align(picture, key_points, self.spec.size).astype(np.float32)
        values = (crop - self.spec.mean) / self.spec.std
        embedding = self.run(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))[0].reshape(-1)
        if embedding.size != EMBEDDING:
            raise CheckpointError(
                f"the recogniser gives {embedding.size} numbers for a face; an ArcFace model gives {EMBEDDING}. "
                "Use the files of buffalo_l or antelopev2."
            )
        return embedding
