"""A batch of pictures -> the selected faces with their embeddings, and a report of what was found in each picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from ..errors import ImagePromptError
from ..pictures.preprocessing import rgb
from .analysis import FaceAnalysis, Search
from .runtime import Pixels
from .selection import (
    ALIKE,
    Face,
    Faces,
    FaceSelection,
    Grouping,
    Outliers,
    as_bytes,
    similarity,
    without_outliers,
)

_log = logging.getLogger(__name__)
# pictures that one line lists by number
_MOST_LISTED = 8


class NoFace(str, Enum):
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True)
class FaceQuery:
    """Which faces of a batch of pictures are wanted. min_score: of the detector, 0..1."""

    selection: FaceSelection = field(default_factory=FaceSelection)
    grouping: Grouping = Grouping.SEPARATE
    outliers: Outliers = Outliers.REPORT
    no_face: NoFace = NoFace.ERROR
    min_score: float = 0.5


LARGEST_FACES = FaceQuery()


@dataclass(frozen=True, eq=False)
class _PictureFaces:
    """What was found in one picture, and the faces selected. number: its index in the batch."""

    number: int
    search: Search
    selected: tuple[Face, ...]


def detect_faces(
    image: Tensor,
    analysis: FaceAnalysis,
    query: FaceQuery = LARGEST_FACES,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[Faces, str]:
    """Faces of pictures (n, H, W, c) in 0..1, and the report. progress is called with 1 after each picture.

    Raises ImagePromptError if a picture has no such face, unless the query says to skip it.
    """
    pictures = rgb(image)
    results: list[_PictureFaces] = []
    for number, picture in enumerate(pictures):
        results.append(_faces_of(as_bytes(picture), number, analysis, query))
        progress(1)
    lines = [_report_line(result, query) for result in results]
    _check_missing(results, pictures, query)
    groups, more = _groups([result.selected for result in results], query)
    return Faces(pictures, groups), "\n".join(lines + more)


def _faces_of(picture: Pixels, number: int, analysis: FaceAnalysis, query: FaceQuery) -> _PictureFaces:
    """Only the selected faces are embedded."""
    search = analysis.find(picture, query.min_score)
    selected = query.selection.select(search.found)
    return _PictureFaces(
        number, search, tuple(analysis.identify(picture, found, number) for found in selected)
    )


def _check_missing(results: Sequence[_PictureFaces], pictures: Tensor, query: FaceQuery) -> None:
    """Raise, or log, that pictures have no selected face."""
    missing = [result for result in results if not result.selected]
    if missing and query.no_face is NoFace.ERROR:
        raise ImagePromptError(_no_face_message(missing, pictures, query))
    if missing:
        _log.warning(
            "no face in %d of %d pictures, skipped: %s", len(missing), len(results), _numbers(missing)
        )


def _no_face_message(missing: Sequence[_PictureFaces], pictures: Tensor, query: FaceQuery) -> str:
    """Pictures without any face and the passes that were tried there, then pictures with too few faces."""
    count, height, width = pictures.shape[:3]
    empty = [result for result in missing if not result.search.found]
    reasons = [_reason(result, query) for result in missing if result.search.found][:_MOST_LISTED]
    if empty:
        tried = ", ".join(empty[0].search.attempts)
        reasons.insert(0, f"no face found in picture {_numbers(empty)}, tried {tried}")
    return (
        f"{'; '.join(reasons)} (of {count} pictures, {width} x {height} pixels). Use a picture with a face that is in view "
        f"and not turned away, lower min_score ({query.min_score:g}) or index ({query.selection.index}), "
        "or set no_face to 'skip'."
    )


def _reason(result: _PictureFaces, query: FaceQuery) -> str:
    found, number = len(result.search.found), result.number + 1
    if not found:
        return f"no face found in picture {number}, tried {', '.join(result.search.attempts)}"
    return f"picture {number} has {found} face(s), and none of index {query.selection.index}"


def _numbers(results: Sequence[_PictureFaces]) -> str:
    more = [f"and {len(results) - _MOST_LISTED} more"] if len(results) > _MOST_LISTED else []
    return ", ".join([*(str(result.number + 1) for result in results[:_MOST_LISTED]), *more])


def _report_line(result: _PictureFaces, query: FaceQuery) -> str:
    if not result.selected:
        return f"{_reason(result, query)}: skipped"
    found, attempts = len(result.search.found), ", ".join(result.search.attempts)
    taken = "; ".join(f"score {face.score:.2f}, box {_box(face)}" for face in result.selected)
    return (
        f"picture {result.number + 1}: {found} found (tried {attempts}); "
        f"taken, {query.selection.order.value}: {taken}"
    )


def _box(face: Face) -> str:
    x1, y1, x2, y2 = (round(float(side)) for side in face.box)
    return f"({x1}, {y1})-({x2}, {y2})"


def _groups(
    selected: Sequence[tuple[Face, ...]], query: FaceQuery
) -> tuple[tuple[tuple[Face, ...], ...], list[str]]:
    """The groups, and the lines that the report has about them."""
    if query.grouping is Grouping.SEPARATE:
        return tuple(group for faces in selected for group in ([(face,) for face in faces] or [()])), []
    together = tuple(face for faces in selected for face in faces)
    kept = without_outliers(together) if query.outliers is Outliers.LEAVE_OUT else together
    lines = [
        f"picture {face.picture + 1}, box {_box(face)}: unlike the others (cosine {cosine:.2f}, below {ALIKE}), "
        + ("kept" if face in kept else "left out")
        for face, cosine in zip(together, similarity(together), strict=True)
        if cosine < ALIKE
    ]
    for line in lines:
        _log.warning(line)
    return (kept,), [f"one identity of {len(kept)} face(s)", *lines]
