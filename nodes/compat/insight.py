"""INSIGHTFACE: our face models with the interface of insightface's FaceAnalysis, for other packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ipadapter_core.faces.analysis import FaceAnalysis
from ...ipadapter_core.faces.detection import Detection, Detector
from ...ipadapter_core.faces.identity import Recogniser

Size = tuple[int, int]
_USUAL_SIZE, _USUAL_SCORE = (640, 640), 0.5


class FoundFace(Mapping[str, Any]):
    """One face: bbox (4,), kps (5, 2), det_score, embedding and normed_embedding (512,), as attributes and as items.

    The embedding is computed when it is first read. Attributes that insightface's other models would add are None.
    """

    _KEYS = ("bbox", "kps", "det_score", "embedding", "normed_embedding", "embedding_norm")

    def __init__(self, found: Detection, picture: NDArray[np.uint8], recogniser: Recogniser):
        self.bbox, self.kps, self.det_score = found.box, found.key_points, found.score
        self._picture, self._recogniser = picture, recogniser

    @cached_property
    def embedding(self) -> NDArray[np.float32]:
        return self._recogniser.embed(self._picture, self.kps)

    @property
    def embedding_norm(self) -> float:
        return float(np.linalg.norm(self.embedding))

    @property
    def normed_embedding(self) -> NDArray[np.float32]:
        return self.embedding / self.embedding_norm

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __getitem__(self, key: str) -> Any:
        if key not in self._KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._KEYS)

    def __len__(self) -> int:
        return len(self._KEYS)


class DetectionModel:
    """`det_model`: detects at `input_size` (w, h), which callers set; graphs of a fixed size keep theirs."""

    taskname = "detection"

    def __init__(self, detector: Detector):
        self.detector = detector
        self.input_size: Size = _USUAL_SIZE
        self.det_thresh = _USUAL_SCORE

    def find(self, rgb: NDArray[np.uint8], max_num: int = 0) -> tuple[Detection, ...]:
        """Faces, the most certain first; of more than max_num (0: any number) the largest."""
        size = self.detector.spec.size or (int(self.input_size[0]), int(self.input_size[1]))
        found = self.detector.detect(rgb, size, self.det_thresh)
        if not 0 < max_num < len(found):
            return found
        return tuple(sorted(found, key=lambda face: -face.area)[:max_num])

    def detect(self, img: NDArray[np.uint8], input_size: Size | None = None, max_num: int = 0, **_: Any):
        """(boxes with scores (n, 5), key points (n, 5, 2)) of a picture (H, W, 3) BGR, 0..255."""
        self.input_size = input_size or self.input_size
        found = self.find(_rgb(img), max_num)
        boxes = [np.append(face.box, np.float32(face.score)) for face in found]
        points = [face.key_points for face in found]
        return np.array(boxes, np.float32).reshape(-1, 5), np.array(points, np.float32).reshape(-1, 5, 2)


class RecognitionModel:
    """`models['recognition']`."""

    taskname = "recognition"

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser
        self.input_size: Size = (recogniser.spec.size, recogniser.spec.size)

    def get(self, img: NDArray[np.uint8], face: Any) -> NDArray[np.float32]:
        return self.recogniser.embed(_rgb(img), face.kps)


class InsightFace:
    """Detector and recogniser, behind the interface of insightface.app.FaceAnalysis."""

    def __init__(self, analysis: FaceAnalysis):
        self.analysis = analysis
        self.det_model = DetectionModel(analysis.detector)
        self.models = {"detection": self.det_model, "recognition": RecognitionModel(analysis.recogniser)}

    def prepare(self, ctx_id: int = 0, det_thresh: float = _USUAL_SCORE, det_size: Size = _USUAL_SIZE):
        """ctx_id chooses a device in insightface; here the loader's provider did."""
        self.det_model.det_thresh, self.det_model.input_size = det_thresh, det_size

    def get(self, img: NDArray[np.uint8], max_num: int = 0) -> list[FoundFace]:
        """The faces of a picture (H, W, 3) BGR, 0..255."""
        picture = _rgb(img)
        recogniser = self.analysis.recogniser
        return [FoundFace(face, picture, recogniser) for face in self.det_model.find(picture, max_num)]


def _rgb(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(bgr[:, :, ::-1])
