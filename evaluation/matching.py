"""Which generated pictures belong to which reference, and what its captions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..ipadapter_core.errors import MissingFileError, SettingError, shown
from ..ipadapter_core.pictures.lists import SUFFIXES, captions_of, picture_files, picture_of, read_list

# a file, or a node's picture
Picture = Path | Image.Image


@dataclass(frozen=True)
class Group:
    """A reference picture, what was generated from it, in the order of names, and its captions."""

    name: str
    reference: Picture
    generated: tuple[Picture, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Matching:
    """groups: references with what was generated from them. bare: references from which nothing was generated.
    strangers: generated pictures that belong to no reference."""

    groups: tuple[Group, ...]
    bare: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


def pictures_in(folder: Path) -> list[Path]:
    """All pictures below a folder, by name. Raises MissingFileError if there is none."""
    try:
        found = picture_files(folder)
    # also for a name that no folder can have
    except (OSError, ValueError):
        found = []
    if not found:
        raise MissingFileError(
            f"no picture in {shown(folder)}. Expected files with one of {', '.join(SUFFIXES)}."
        )
    return found


def require_own_names(references: Sequence[Path]) -> None:
    """Raise SettingError where two references have one name, and so their pictures would."""
    stems = Counter(path.stem for path in references)
    if twice := sorted(stem for stem, times in stems.items() if times > 1):
        raise SettingError(
            f"several references are called {shown(', '.join(twice[:4]))}; names without suffix must differ."
        )


def match(
    references: Path, generated: Path, captions: Path | None = None, first: int | None = None
) -> Matching:
    """Generated pictures of reference 'cat.jpg' are cat.png, cat_0.png, cat-0.png, ... or lie in a folder 'cat'.

    captions: a COCO captions_*.json, a .jsonl, .json or .csv list, or a folder of .txt files; without it .txt files beside
    the references. first: only so many references count, by name.
    """
    sources = pictures_in(references)
    require_own_names(sources)
    stems = {path.stem: path for path in sources}
    made: dict[str, list[Path]] = {stem: [] for stem in stems}
    strangers: list[str] = []
    for path in pictures_in(generated):
        stem = _reference_of(path, generated, stems)
        if stem is None:
            strangers.append(path.name)
        else:
            made[stem].append(path)
    if not any(made.values()):
        raise SettingError(
            f"none of the {len(strangers)} pictures in {shown(generated)} belongs to one in {shown(references)}: "
            f"{shown(strangers[0])}, ... Name them after the reference: cat_0.png, cat_1.png of cat.jpg, or put them in a "
            "folder 'cat'."
        )
    texts = read_captions(captions) if captions else {}
    counted = dict(list(stems.items())[:first])
    groups = tuple(
        Group(stem, path, tuple(made[stem]), texts.get(stem) or _beside(path))
        for stem, path in counted.items()
        if made[stem]
    )
    if not groups:
        raise SettingError(
            f"nothing in {shown(generated)} was generated from the first {len(counted)} references. Raise --first."
        )
    return Matching(groups, tuple(stem for stem in counted if not made[stem]), tuple(strangers))


def _reference_of(path: Path, root: Path, stems: Mapping[str, Path]) -> str | None:
    """By its own name, the name without a last _0 or -0, or the name of a folder that it is in."""
    folders = path.relative_to(root).parts[:-1]
    stem = path.stem
    names = [stem]
    for separator in "_-":
        head, found, tail = stem.rpartition(separator)
        if found and tail.isdigit():
            names.append(head)
    names += reversed(folders)
    return next((name for name in names if name in stems), None)


def _beside(path: Path) -> tuple[str, ...]:
    text = path.with_suffix(".txt")
    try:
        if not text.is_file():
            return ()
        lines = text.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise SettingError(
            f"the captions in {shown(text)} cannot be read: {shown(error)}. Save them as UTF-8."
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by the picture's name without suffix. Raises SettingError for another layout."""
    if path.is_dir():
        return {text.stem: _beside(text) for text in path.rglob("*.txt")}
    rows = _rows(path)
    if isinstance(rows, Mapping):
        return _coco(path, rows)
    found: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise SettingError(
                f"entry {number} of {shown(path.name)} is {shown(row, 60)}; expected an object with the names of a picture "
                "and of its caption."
            )
        stem = Path(picture_of(path, number, row)).stem
        found[stem] = (*found.get(stem, ()), *(_text(path, number, text) for text in captions_of(row)))
    return found


def _rows(path: Path) -> Any:
    try:
        rows = read_list(path)
    except RecursionError as error:
        raise SettingError(f"{shown(path.name)} is nested too deeply to be a list of captions.") from error
    if not isinstance(rows, Mapping | list):
        raise SettingError(f"{shown(path.name)} holds {shown(rows, 60)}; expected a list of captions.")
    return rows


def _text(path: Path, number: int, text: str) -> str:
    """Raises SettingError for half a character (a lone surrogate), which no tokenizer takes."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise SettingError(
            f"the caption of entry {number} of {shown(path.name)} is no text: {shown(text, 60)}. Correct it."
        )
    return text


def _coco(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """captions_val2017.json: five captions a picture, in the order of their ids."""
    if not {"images", "annotations"} <= content.keys():
        raise SettingError(
            f"{shown(path.name)} is no COCO captions file: it has no 'images' and 'annotations'."
        )
    found: dict[str, tuple[str, ...]] = {}
    try:
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        for row in sorted(content["annotations"], key=lambda row: row["id"]):
            stem = stems[row["image_id"]]
            found[stem] = (*found.get(stem, ()), _text(path, row["id"], str(row["caption"]).strip()))
    except (KeyError, TypeError) as error:
        raise SettingError(
            f"{shown(path.name)} is no whole COCO captions file ({shown(error)}): an image needs id and file_name, an "
            "annotation id, image_id and caption."
        ) from error
    return found
