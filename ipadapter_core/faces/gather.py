"""From a batch of pictures to the chosen faces, and a report that tells what was found and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from ..errors import ImagePromptError
from ..pictures.preprocessing import rgb
from .analysis import FaceAnalysis, Search
from .pick import ALIKE, Choice, Combine, Face, Faces, Outliers, as_bytes, likeness, without_outliers
from .runtime import Pixels

_log = logging.getLogger(__name__)
_NAMED = 8  # pictures that one line names


class NoFace(str, Enum):
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True)
class Wish:
    """What is asked for. min_score: of the detector, 0..1."""

    choice: Choice = field(default_factory=Choice)
    combine: Combine = Combine.APART
    outliers: Outliers = Outliers.TELL
    no_face: NoFace = NoFace.ERROR
    min_score: float = 0.5


LARGEST_FACES = Wish()


@dataclass(frozen=True, eq=False)
class _Look:
    """One picture: what was found in it, and which faces were chosen."""

    number: int
    search: Search
    chosen: tuple[Face, ...]


def gather(
    image: Tensor,
    analysis: FaceAnalysis,
    wish: Wish = LARGEST_FACES,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[Faces, str]:
    """Faces of pictures (n, H, W, c) in 0..1, and the report. progress is called with 1 after each picture.

    Raises ImagePromptError if a picture has no such face, unless the wish is to skip it.
    """
    pictures = rgb(image)
    looks: list[_Look] = []
    for number, picture in enumerate(pictures):
        looks.append(_look(as_bytes(picture), number, analysis, wish))
        progress(1)
    lines = [_line(look, wish) for look in looks]
    _answer_for(looks, pictures, wish)
    groups, more = _groups([look.chosen for look in looks], wish)
    return Faces(pictures, groups), "\n".join(lines + more)


def _look(picture: Pixels, number: int, analysis: FaceAnalysis, wish: Wish) -> _Look:
    """Only the faces chosen are identified."""
    search = analysis.find(picture, wish.min_score)
    chosen = wish.choice.of(search.found)
    return _Look(number, search, tuple(analysis.identify(picture, found, number) for found in chosen))


def _answer_for(looks: Sequence[_Look], pictures: Tensor, wish: Wish) -> None:
    """Raise, or log, that pictures are without a face."""
    without = [look for look in looks if not look.chosen]
    if without and wish.no_face is NoFace.ERROR:
        raise ImagePromptError(_complaint(without, pictures, wish))
    if without:
        _log.warning("no face in %d of %d pictures, skipped: %s", len(without), len(looks), _numbers(without))


def _complaint(without: Sequence[_Look], pictures: Tensor, wish: Wish) -> str:
    """Pictures in which nothing was found, what was tried there, and pictures that have too few faces."""
    count, height, width = pictures.shape[:3]
    empty = [look for look in without if not look.search.found]
    told = [_shortfall(look, wish) for look in without if look.search.found][:_NAMED]
    if empty:
        told.insert(
            0, f"no face found in picture {_numbers(empty)}, tried {', '.join(empty[0].search.attempts)}"
        )
    return (
        f"{'; '.join(told)} (of {count} pictures, {width} x {height} pixels). Use a picture with a face that is in view "
        f"and not turned away, lower min_score ({wish.min_score:g}) or index ({wish.choice.index}), "
        "or set no_face to 'skip'."
    )


def _shortfall(look: _Look, wish: Wish) -> str:
    if not look.search.found:
        return f"no face found in picture {look.number + 1}, tried {', '.join(look.search.attempts)}"
    return f"picture {look.number + 1} has {len(look.search.found)} face(s), and none of index {wish.choice.index}"


def _numbers(looks: Sequence[_Look]) -> str:
    more = [f"and {len(looks) - _NAMED} more"] if len(looks) > _NAMED else []
    return ", ".join([*(str(look.number + 1) for look in looks[:_NAMED]), *more])


def _line(look: _Look, wish: Wish) -> str:
    if not look.chosen:
        return f"{_shortfall(look, wish)}: skipped"
    found, attempts = len(look.search.found), ", ".join(look.search.attempts)
    picked = "; ".join(f"score {face.score:.2f}, box {_box(face)}" for face in look.chosen)
    return (
        f"picture {look.number + 1}: {found} found (tried {attempts}); "
        f"taken, {wish.choice.order.value}: {picked}"
    )


def _box(face: Face) -> str:
    x1, y1, x2, y2 = (round(float(side)) for side in face.box)
    return f"({x1}, {y1})-({x2}, {y2})"


def _groups(chosen: Sequence[tuple[Face, ...]], wish: Wish) -> tuple[tuple[tuple[Face, ...], ...], list[str]]:
    """The groups, and what there is to tell about them."""
    if wish.combine is Combine.APART:
        return tuple(group for faces in chosen for group in ([(face,) for face in faces] or [()])), []
    together = tuple(face for faces in chosen for face in faces)
    kept = without_outliers(together) if wish.outliers is Outliers.LEAVE_OUT else together
    lines = [
        f"picture {face.picture + 1}, box {_box(face)}: unlike the others (cosine {cosine:.2f}, below {ALIKE}), "
        + ("kept" if face in kept else "left out")
        for face, cosine in zip(together, likeness(together), strict=True)
        if cosine < ALIKE
    ]
    for line in lines:
        _log.warning(line)
    return (kept,), [f"one identity of {len(kept)} face(s)", *lines]
