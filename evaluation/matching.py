"""Which generated pictures belong to which reference, and what its captions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..common.lists import SUFFIXES, captions_of, picture_files, picture_of, read_list
from ..ipadapter_core.errors import MissingFileError, RecipeError

Picture = Path | Image.Image  # a file, or what a node holds


@dataclass(frozen=True)
class Group:
    """A reference picture, what was generated from it, in the order of names, and its captions."""

    name: str
    reference: Picture
    generated: tuple[Picture, ...]
    captions: tuple[str, ...]


def pictures_in(folder: Path) -> list[Path]:
    """All pictures below a folder, by name. Raises MissingFileError if there is none."""
    found = picture_files(folder)
    if not found:
        raise MissingFileError(f"no picture in {folder}. Expected files with one of {', '.join(SUFFIXES)}.")
    return found


def groups(references: Path, generated: Path, captions: Path | None = None) -> list[Group]:
    """Generated pictures of reference 'cat.jpg' are cat.png, cat_0.png, cat-0.png, ... or lie in a folder 'cat'.

    captions: a COCO captions_*.json, a .jsonl, .json or .csv list, or a folder of .txt files; without it .txt files beside
    the references. References from which nothing was generated are left out.
    """
    sources = pictures_in(references)
    stems = {path.stem: path for path in sources}
    if len(stems) < len(sources):
        twice = sorted({path.stem for path in sources if stems[path.stem] != path})
        raise RecipeError(
            f"several references are called {', '.join(twice[:4])}; names without suffix must differ."
        )
    made: dict[str, list[Path]] = {stem: [] for stem in stems}
    strangers: list[str] = []
    for path in pictures_in(generated):
        stem = _reference_of(path, generated, stems)
        made[stem].append(path) if stem else strangers.append(path.name)
    if not any(made.values()):
        raise RecipeError(
            f"none of the {len(strangers)} pictures in {generated} belongs to one in {references}: {strangers[0]}, ... "
            "Name them after the reference: cat_0.png, cat_1.png of cat.jpg, or put them in a folder 'cat'."
        )
    texts = read_captions(captions) if captions else {}
    return [
        Group(stem, path, tuple(made[stem]), texts.get(stem) or _beside(path))
        for stem, path in stems.items()
        if made[stem]
    ]


def _reference_of(path: Path, root: Path, stems: Mapping[str, Path]) -> str | None:
    """Its own name, the name without a last _0 or -0, or a folder it lies in."""
    folders = path.relative_to(root).parts[:-1]
    stem = path.stem
    names = [stem]
    for mark in "_-":
        head, found, tail = stem.rpartition(mark)
        if found and tail.isdigit():
            names.append(head)
    names += reversed(folders)
    return next((name for name in names if name in stems), None)


def _beside(path: Path) -> tuple[str, ...]:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ()
    return tuple(line.strip() for line in text.read_text(encoding="utf-8").splitlines() if line.strip())


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by the picture's name without suffix. Raises RecipeError for what is none of the layouts."""
    if path.is_dir():
        return {text.stem: _beside(text) for text in path.rglob("*.txt")}
    rows = read_list(path)
    if isinstance(rows, Mapping):
        return _coco(path, rows)
    found: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 1):
        stem = Path(picture_of(path, number, row)).stem
        found[stem] = (*found.get(stem, ()), *captions_of(row))
    return found


def _coco(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """captions_val2017.json: five captions a picture, in the order of their ids."""
    if not {"images", "annotations"} <= content.keys():
        raise RecipeError(f"{path.name} is no COCO captions file: it has no 'images' and 'annotations'.")
    stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    found: dict[str, tuple[str, ...]] = {}
    for row in sorted(content["annotations"], key=lambda row: row["id"]):
        stem = stems[row["image_id"]]
        found[stem] = (*found.get(stem, ()), str(row["caption"]).strip())
    return found
