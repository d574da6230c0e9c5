"""Lists of pictures with captions as people keep them: .jsonl, .json, .csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import MissingFileError, RecipeError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # of pictures
PICTURE = ("image_file", "image", "file_name", "file", "path")  # names of the column, the reference's first
CAPTION = ("text", "caption", "captions", "prompt")
Row = Mapping[str, Any]

READERS: dict[str, Callable[[Iterable[str]], Any]] = {
    ".jsonl": lambda lines: [json.loads(line) for line in lines if line.strip()],
    ".json": lambda lines: json.loads("".join(lines)),
    ".csv": lambda lines: list(csv.DictReader(lines)),
}


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, by name; none where there is no such folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def read_list(path: Path) -> Any:
    """The rows of a list; of a .json file whatever it holds. Raises MissingFileError or RecipeError."""
    if not path.is_file():
        raise MissingFileError(f"the list {path} does not exist. Check the path.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return READERS.get(path.suffix, READERS[".json"])(file)
    except (OSError, ValueError, csv.Error) as error:
        raise RecipeError(f"{path.name} cannot be read as {path.suffix}: {error}.") from error


def picture_of(path: Path, number: int, row: Row) -> str:
    """The picture that row 1, 2, ... of the list names."""
    named = next((str(row[key]) for key in PICTURE if row.get(key)), None)
    if named is None:
        raise RecipeError(
            f"entry {number} of {path.name} names no picture; it has {', '.join(map(str, row)) or 'nothing'}. Expected one "
            f"of {', '.join(PICTURE)}, and {', '.join(CAPTION)} for the caption."
        )
    return named


def captions_of(row: Row) -> Sequence[str]:
    """Its captions: several where the column holds a list, none where there is no such column."""
    told = next((row[key] for key in CAPTION if row.get(key)), [])
    return [str(text).strip() for text in told] if isinstance(told, list) else [str(told).strip()]
