"""Lists of pictures with captions as people keep them: .jsonl, .json, .csv."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingFileError, SettingError, shown

# of picture files
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Names of the columns; the first of PICTURE is that of the published training code.
PICTURE = ("image_file", "image", "file_name", "file", "path")
CAPTION = ("text", "caption", "captions", "prompt")
# keys of COCO's captions_*.json
COCO = ("images", "annotations")
Row = Mapping[str, Any]

READERS: dict[str, Callable[[Iterable[str]], Any]] = {
    ".jsonl": lambda lines: [json.loads(line) for line in lines if line.strip()],
    ".json": lambda lines: json.loads("".join(lines)),
    ".csv": lambda lines: list(csv.DictReader(lines)),
}


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, by name; none where there is no such folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def decoded(content: bytes) -> str:
    """Text in UTF-8 or UTF-16, without the byte order mark at its start. Raises UnicodeError."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def read_list(path: Path) -> Any:
    """The rows of a list, of a .json file whatever it holds. Raises MissingFileError or SettingError.

    Names alone, and a dictionary of captions by name, become rows; COCO's dictionary stays as it is.
    """
    if not path.is_file():
        raise MissingFileError(f"the list {shown(path)} does not exist. Check the path.")
    try:
        lines = io.StringIO(decoded(path.read_bytes()), newline="")
        found = READERS.get(path.suffix.lower(), READERS[".json"])(lines)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else shown(error)
        raise SettingError(
            f"{shown(path.name)} cannot be read as {path.suffix}: {cause}. Correct it, and save it as UTF-8."
        ) from error
    return _as_rows(found)


def _as_rows(found: Any) -> Any:
    if isinstance(found, list):
        return [_as_row(each) for each in found]
    if isinstance(found, Mapping) and not any(key in found for key in COCO):
        return [
            {**(_as_row(entry) if isinstance(entry, Mapping) else {CAPTION[0]: entry}), PICTURE[0]: name}
            for name, entry in found.items()
        ]
    return found


def _as_row(entry: Any) -> Any:
    """With column names stripped and in lower case."""
    if isinstance(entry, str):
        return {PICTURE[0]: entry}
    if not isinstance(entry, Mapping):
        return entry
    return {str(key).strip().lower(): value for key, value in entry.items()}


def rows_of(path: Path) -> list[Row]:
    """The rows of a list of pictures. Raises as read_list, and SettingError where it is no such list."""
    rows = read_list(path)
    expected = f"Expected rows with one of {', '.join(PICTURE)}, and {', '.join(CAPTION)} for the caption"
    if not isinstance(rows, list):
        raise SettingError(
            f"{shown(path.name)} holds {type(rows).__name__}, and no list of pictures. {expected}; or names alone, or a "
            "dictionary of captions by name."
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise SettingError(f"entry {number} of {shown(path.name)} is {shown(row, 60)}. {expected}.")
    return rows


def picture_of(path: Path, number: int, row: Row) -> str:
    """The picture of row 1, 2, ... of the list, with the path separators of this system. Raises SettingError."""
    named = next((str(row[key]).strip() for key in PICTURE if row.get(key)), None)
    if not named:
        raise SettingError(
            f"entry {number} of {shown(path.name)} names no picture; it has {shown(', '.join(map(str, row))) or 'nothing'}. "
            f"Expected one of {', '.join(PICTURE)}, and {', '.join(CAPTION)} for the caption."
        )
    return named if "\\" not in named or os.path.lexists(path.parent / named) else named.replace("\\", "/")


def captions_of(row: Row) -> Sequence[str]:
    """Captions of a row: several where the column holds a list, none where there is no such column."""
    texts = next((row[key] for key in CAPTION if row.get(key)), [])
    return [str(text).strip() for text in texts] if isinstance(texts, list) else [str(texts).strip()]
