"""Lists of pictures with captions as people keep them: .jsonl, .json, .csv."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingFileError, SettingError, shown

# of picture files
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Names of the columns; the first of PICTURE is that of the published training code.
PICTURE = ("image_file", "image", "file_name", "file", "path")
CAPTION = ("text", "caption", "captions", "prompt")
# the picture that is the image prompt of this one
REFERENCE = ("reference", "reference_file", "reference_image", "image_prompt")
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
    return list(iter_pictures(folder))


def iter_pictures(folder: Path) -> Iterator[Path]:
    """The same one by one: no more than the names of one folder are held."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: Path(entry.name))
    except OSError:
        return
    for entry in entries:
        path = folder / entry.name
        if path.suffix.lower() in SUFFIXES:
            yield path
        if entry.is_dir(follow_symlinks=False):
            yield from iter_pictures(path)


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
        raise _unreadable(path, error) from error
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


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a list of pictures; of a .jsonl or .csv file one by one, however long it is.

    Raises as read_list, and SettingError where it is no such list.
    """
    expected = f"Expected rows with one of {', '.join(PICTURE)}, and {', '.join(CAPTION)} for the caption"
    stream = _STREAMS.get(path.suffix.lower())
    rows = _streamed(path, stream) if stream else read_list(path)
    if not isinstance(rows, Iterator | list):
        raise SettingError(
            f"{shown(path.name)} holds {type(rows).__name__}, and no list of pictures. {expected}; or names alone, or a "
            "dictionary of captions by name."
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise SettingError(f"entry {number} of {shown(path.name)} is {shown(row, 60)}. {expected}.")
        yield row


_STREAMS: dict[str, Callable[[Iterable[str]], Iterable[Any]]] = {
    ".jsonl": lambda lines: (json.loads(line) for line in lines if line.strip()),
    ".csv": csv.DictReader,
}


def _streamed(path: Path, rows_of: Callable[[Iterable[str]], Iterable[Any]]) -> Iterator[Any]:
    if not path.is_file():
        raise MissingFileError(f"the list {shown(path)} does not exist. Check the path.")
    try:
        with path.open("rb") as file:
            start = file.read(2)
        wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with path.open(encoding="utf-16" if wide else "utf-8-sig", newline="") as lines:
            yield from map(_as_row, rows_of(lines))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SettingError:
    cause = "it is nested too deeply" if isinstance(error, RecursionError) else shown(error)
    return SettingError(
        f"{shown(path.name)} cannot be read as {path.suffix}: {cause}. Correct it, and save it as UTF-8."
    )


def picture_of(path: Path, number: int, row: Row) -> str:
    """The picture of row 1, 2, ... of the list, with the path separators of this system. Raises SettingError."""
    named = next((str(row[key]).strip() for key in PICTURE if row.get(key)), None)
    if not named:
        raise SettingError(
            f"entry {number} of {shown(path.name)} names no picture; it has {shown(', '.join(map(str, row))) or 'nothing'}. "
            f"Expected one of {', '.join(PICTURE)}, and {', '.join(CAPTION)} for the caption."
        )
    return with_separators(path.parent, named)


def with_separators(folder: Path, named: str) -> str:
    """A name in a list with the path separators of this system."""
    return named if "\\" not in named or os.path.lexists(folder / named) else named.replace("\\", "/")


def captions_of(row: Row) -> Sequence[str]:
    """Captions of a row: several where the column holds a list, none where there is no such column."""
    texts = next((row[key] for key in CAPTION if row.get(key)), [])
    return [str(text).strip() for text in texts] if isinstance(texts, list) else [str(texts).strip()]
