"""Which of the detected faces are used, and the embedding of each group of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from .detection import Detection
from .graphs import EMBEDDING
from .identity import align
from .runtime import Floats, Pixels

# Cosine of ArcFace embeddings: below it two faces are hardly of one person.
ALIKE = 0.3


class Order(str, Enum):
    LARGEST = "largest first"
    CERTAIN = "most certain first"
    LEFT = "left to right"
    RIGHT = "right to left"
    TOP = "top to bottom"


class Grouping(str, Enum):
    """Whether several faces are several identities, or are averaged to one."""

    SEPARATE = "each face on its own"
    TOGETHER = "all as one identity"


class Outliers(str, Enum):
    """What happens to a face that is unlike the others it is averaged with."""

    REPORT = "tell"
    LEAVE_OUT = "leave out"


@dataclass(frozen=True, eq=False)
class Face:
    """picture: its number in the batch. box (4,) x1, y1, x2, y2 and key_points (5, 2) in pixels. score: 0..1.

    embedding (512,): ArcFace's, not normalised.
    """

    picture: int
    box: Floats
    key_points: Floats
    score: float
    embedding: Floats


@dataclass(frozen=True, eq=False)
class Faces:
    """Selected faces in groups: one group is one identity, of several faces where they are averaged.

    An empty group stands for a picture without a face that was skipped. pictures (n, H, W, 3) in 0..1.
    """

    pictures: Tensor
    groups: tuple[tuple[Face, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of faces of each group; `crops` has them in this order."""
        return tuple(len(group) for group in self.groups)

    @property
    def present(self) -> tuple[bool, ...]:
        return tuple(bool(group) for group in self.groups)

    def embeddings(self, normalise: bool) -> Tensor:
        """(groups, 512) fp32, the mean of each group; zeros for an empty one.

        normalise: the mean of unit vectors, brought to unit length again.
        """
        if not self.groups:
            return torch.zeros(0, EMBEDDING)
        return torch.stack([_mean_embedding(group, normalise) for group in self.groups])

    def crops(self, size: int) -> Tensor:
        """(faces, size, size, 3) in 0..1: each face aligned, in the order of the groups. Raises without OpenCV."""
        return self._stacked(self.groups, size)

    def views(self, size: int) -> Tensor:
        """As `crops`, with a black one for each empty group, so that there is a view for each picture."""
        return self._stacked([group or (None,) for group in self.groups], size)

    def masks(self) -> Tensor:
        """(views, H, W): 1 in the box of each face, 0 elsewhere; none in that of an empty group."""
        height, width = self.pictures.shape[1:3]
        shown = [face for group in self.groups for face in group or (None,)]
        masks = torch.zeros(len(shown), height, width)
        for mask, face in zip(masks, shown, strict=True):
            if face is not None:
                x1, y1, x2, y2 = _whole(face.box, width, height)
                mask[y1:y2, x1:x2] = 1
        return masks

    def _stacked(self, groups: Sequence[Sequence[Face | None]], size: int) -> Tensor:
        views = [self._view(face, size) for group in groups for face in group]
        return torch.stack(views) if views else torch.zeros(0, size, size, 3)

    def _view(self, face: Face | None, size: int) -> Tensor:
        if face is None:
            return torch.zeros(size, size, 3)
        return torch.from_numpy(align(as_bytes(self.pictures[face.picture]), face.key_points, size)) / 255


def as_bytes(picture: Tensor) -> Pixels:
    """(H, W, 3) in 0..1 -> 0..255, rounded."""
    return (picture * 255).round().clamp(0, 255).to("cpu", torch.uint8).numpy()


def _whole(box: Floats, width: int, height: int) -> list[int]:
    """x1, y1, x2, y2 of the pixels that a box touches, clipped to the picture."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return [max(0, int(x1)), max(0, int(y1)), max(0, min(width, int(x2))), max(0, min(height, int(y2)))]


def _mean_embedding(group: Sequence[Face], normalise: bool) -> Tensor:
    if not group:
        return torch.zeros(EMBEDDING)
    each = torch.from_numpy(np.stack([face.embedding for face in group])).float()
    if not normalise:
        return each.mean(0)
    return torch.nn.functional.normalize(torch.nn.functional.normalize(each, dim=-1).mean(0), dim=-1)


@dataclass(frozen=True)
class FaceSelection:
    """Faces [index : index + count] of each picture, sorted by `order`. index: negative from the end. count: 0 for all."""

    order: Order = Order.LARGEST
    index: int = 0
    count: int = 1

    def select(self, found: Sequence[Detection]) -> tuple[Detection, ...]:
        """Empty if the picture has no face of this index."""
        ordered = sorted(found, key=_KEYS[self.order])
        start = self.index + len(ordered) if self.index < 0 else self.index
        if not 0 <= start < len(ordered):
            return ()
        return tuple(ordered[start : start + self.count if self.count else None])


_KEYS: dict[Order, Callable[[Detection], float]] = {
    Order.LARGEST: lambda face: -face.area,
    Order.CERTAIN: lambda face: -face.score,
    Order.LEFT: lambda face: float(face.box[0] + face.box[2]),
    Order.RIGHT: lambda face: -float(face.box[0] + face.box[2]),
    Order.TOP: lambda face: float(face.box[1] + face.box[3]),
}


def similarity(faces: Sequence[Face]) -> list[float]:
    """For each face the cosine similarity of its embedding to the mean of all the others; [1.0] for a face alone."""
    if len(faces) < 2:
        return [1.0] * len(faces)
    each = np.stack([face.embedding / np.linalg.norm(face.embedding) for face in faces])
    others = each.sum(0) - each
    return [float(c) for c in (each * others).sum(1) / np.linalg.norm(others, axis=1).clip(min=1e-12)]


def without_outliers(faces: Sequence[Face]) -> tuple[Face, ...]:
    """The faces that are similar to the others. All of them where none is: then there is no majority."""
    alike = tuple(face for face, cosine in zip(faces, similarity(faces), strict=True) if cosine >= ALIKE)
    return alike or tuple(faces)
