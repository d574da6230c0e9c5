"""A folder of ONNX files -> a detector and a recogniser; and detection in several passes, until one finds a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CheckpointError, MissingFileError
from .detection import Detection, Detector
from .graphs import DetectorSpec, Graph, RecogniserSpec, detector_spec, read_graph, recogniser_spec
from .identity import Recogniser
from .runtime import Pixels, require
from .selection import Face
from .sessions import execution_provider, open_session

WHERE_TO_GET = (
    "Get buffalo_l.zip (about 280 MB) or antelopev2.zip (about 360 MB) from "
    "https://github.com/deepinsight/insightface/releases (licence: non-commercial research)"
)


@dataclass(frozen=True)
class DetectionPass:
    """One run of the detector, at size x size pixels. margin: black border at each side, as a fraction of that side."""

    size: int
    margin: float = 0.0

    def __str__(self) -> str:
        return f"size {self.size}" + (f" with a margin of {self.margin:.0%}" if self.margin else "")


# Tried in this order. The first is what insightface does. A face that fills the picture is detected at a smaller size or
# with a margin, a small face in a large picture at a larger size.
PASSES = (
    *(DetectionPass(size) for size in (640, 512, 384, 320, 256)),
    DetectionPass(640, 0.25),
    DetectionPass(640, 0.5),
    DetectionPass(1024),
)


@dataclass(frozen=True, eq=False)
class Search:
    """found: the most certain first. attempts: the passes that ran; the last one found the faces, if any were found."""

    found: tuple[Detection, ...]
    attempts: tuple[str, ...]


@dataclass(frozen=True)
class FaceAnalysis:
    detector: Detector
    recogniser: Recogniser

    @classmethod
    def open(cls, folder: str | Path, provider: str = "CPU") -> FaceAnalysis:
        """Open the first detector and the first recogniser of a folder, by content; files may lie in folders inside.

        provider: a key of sessions.PROVIDERS. Raises MissingPackageError, SettingError for an unknown provider,
        MissingFileError for a missing detector or recogniser, and CheckpointError for a damaged one.
        """
        require()
        execution_provider(provider)
        (finder, finder_spec), (reader, reader_spec) = _parts(Path(folder))
        return cls(
            Detector(finder_spec, open_session(finder.path, finder.input_name, provider)),
            Recogniser(reader_spec, open_session(reader.path, reader.input_name, provider)),
        )

    def find(self, picture: Pixels, min_score: float = 0.5) -> Search:
        """Faces of a picture (H, W, 3) RGB, 0..255, by the first of PASSES that finds any."""
        attempts: list[str] = []
        for each in self._passes():
            attempts.append(str(each))
            if found := self._detect(picture, each, min_score):
                return Search(found, tuple(attempts))
        return Search((), tuple(attempts))

    def identify(self, picture: Pixels, found: Detection, number: int = 0) -> Face:
        """The face with its embedding. number: index of the picture in its batch."""
        embedding = self.recogniser.embed(picture, found.key_points)
        return Face(number, found.box, found.key_points, found.score, embedding)

    def _passes(self) -> Sequence[DetectionPass]:
        size = self.detector.spec.size
        if size is None:
            return PASSES
        return [DetectionPass(max(size), margin) for margin in dict.fromkeys(each.margin for each in PASSES)]

    def _detect(self, picture: Pixels, each: DetectionPass, min_score: float) -> tuple[Detection, ...]:
        size = self.detector.spec.size or (each.size, each.size)
        if not each.margin:
            return self.detector.detect(picture, size, min_score)
        y, x = (round(side * each.margin) for side in picture.shape[:2])
        padded = np.pad(picture, ((y, y), (x, x), (0, 0)))
        return tuple(found.moved(-x, -y) for found in self.detector.detect(padded, size, min_score))


def _parts(folder: Path) -> tuple[tuple[Graph, DetectorSpec], tuple[Graph, RecogniserSpec]]:
    """The first detector with key points and the first recogniser, by name, the outer folder before inner ones."""
    graphs, damaged = _outlines(folder)
    detectors = [(graph, spec) for graph in graphs if (spec := detector_spec(graph)) and spec.key_points]
    recognisers = [(graph, spec) for graph in graphs if (spec := recogniser_spec(graph))]
    if detectors and recognisers:
        return detectors[0], recognisers[0]
    if damaged:
        raise damaged[0]
    missing = [
        *([] if detectors else ["detector with key points (SCRFD)"]),
        *([] if recognisers else ["recogniser (ArcFace)"]),
    ]
    raise MissingFileError(
        f"{folder} has no {' and no '.join(missing)}; ONNX files there: "
        f"{', '.join(graph.path.name for graph in graphs) or 'none'}. {WHERE_TO_GET} and put all its files there."
    )


def _outlines(folder: Path) -> tuple[list[Graph], list[CheckpointError | MissingFileError]]:
    """Of all .onnx files in the folder and below: those that can be read, and the errors of the others."""
    graphs: list[Graph] = []
    damaged: list[CheckpointError | MissingFileError] = []
    for path in sorted(folder.rglob("*.onnx"), key=lambda path: (len(path.parts), path.name)):
        try:
            graphs.append(read_graph(path))
        except (CheckpointError, MissingFileError) as error:
            damaged.append(error)
    return graphs, damaged
