"""SCRFD (arXiv 2105.04714): a picture -> boxes, five key points and scores, by the rules of insightface's detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .graphs import DetectorSpec
from .runtime import Floats, Pixels, resize

MOST_OVERLAP = 0.4
MEAN, STD = 127.5, 128.0


@dataclass(frozen=True, eq=False)
class Detection:
    """box (4,) x1, y1, x2, y2 and key_points (5, 2): eyes, nose, mouth corners; in pixels. score: 0..1."""

    box: Floats
    key_points: Floats
    score: float

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    def moved(self, x: float, y: float) -> Detection:
        shift = np.array((x, y), np.float32)
        return replace(self, box=self.box + np.tile(shift, 2), key_points=self.key_points + shift)


@dataclass(frozen=True)
class Detector:
    """spec: of a graph with key points. run: inference on (1, 3, h, w)."""

    spec: DetectorSpec
    run: Callable[[Floats], list[Floats]]

    def detect(self, picture: Pixels, size: tuple[int, int], min_score: float = 0.5) -> tuple[Detection, ...]:
        """Faces of a picture (H, W, 3) RGB, 0..255, resized to `size` (w, h); the most certain first."""
        resized, scale = letterbox(picture, size)
        values = (resized.astype(np.float32) - MEAN) / STD
        outputs = self.run(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))
        boxes, key_points, scores = self._decode(outputs, size, min_score)
        order = np.argsort(-scores, kind="stable")
        boxes, key_points, scores = boxes[order] / scale, key_points[order] / scale, scores[order]
        return tuple(Detection(boxes[n], key_points[n], float(scores[n])) for n in nms(boxes, MOST_OVERLAP))

    def _decode(
        self, outputs: list[Floats], size: tuple[int, int], min_score: float
    ) -> tuple[Floats, Floats, Floats]:
        """Boxes (n, 4), key points (n, 5, 2) and scores (n,) of all anchors with at least min_score, in pixels of `size`."""
        levels = len(self.spec.strides)
        boxes, points, scores = [], [], []
        for level, stride in enumerate(self.spec.strides):
            score, box, point = (_rows(outputs[level + part * levels]) for part in range(3))
            kept = np.flatnonzero(score[:, 0] >= min_score)
            centers = anchor_centers(size, stride, self.spec.anchors)[kept]
            boxes.append(distance2bbox(centers, box[kept] * stride))
            points.append(centers[:, None] + (point[kept] * stride).reshape(-1, 5, 2))
            scores.append(score[kept, 0])
        return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)


def _rows(output: Floats) -> Floats:
    """Graphs for batches give (1, n, c), the others (n, c)."""
    return output[0] if output.ndim == 3 else output


def letterbox(picture: Pixels, size: tuple[int, int]) -> tuple[Pixels, float]:
    """The picture, resized, in the top left corner of a black one of `size` (w, h); and the scale of its height."""
    height, width = picture.shape[:2]
    ratio = height / width
    if ratio > size[1] / size[0]:
        new_width, new_height = max(1, int(size[1] / ratio)), size[1]
    else:
        new_width, new_height = size[0], max(1, int(size[0] * ratio))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[:new_height, :new_width] = resize(picture, new_width, new_height)
    return canvas, new_height / height


def anchor_centers(size: tuple[int, int], stride: int, anchors: int) -> Floats:
    """(h * w * anchors, 2) x, y of the anchors of a feature map, row by row."""
    y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
    centers = np.stack((x, y), -1).reshape(-1, 2) * stride
    return np.repeat(centers, anchors, axis=0).astype(np.float32)


def distance2bbox(centers: Floats, distances: Floats) -> Floats:
    """Centers (n, 2) and distances (n, 4) to left, top, right and bottom -> boxes (n, 4)."""
    return np.concatenate((centers - distances[:, :2], centers + distances[:, 2:]), axis=1)


def nms(boxes: Floats, most_overlap: float) -> list[int]:
    """Greedy non-maximum suppression of boxes (n, 4), best first: indices of those kept.

    most_overlap: intersection over union. Sides count whole pixels, as in insightface.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    left: NDArray[np.intp] = np.arange(len(boxes))
    kept: list[int] = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[left, :2])
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - corner + 1
        common = sides.clip(min=0).prod(1)
        left = left[common / (areas[best] + areas[left] - common) <= most_overlap]
    return kept
