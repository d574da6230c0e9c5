"""An index of model files: each is inspected once and remembered until its size or time changes.

The index never decides by name, opens no file that it knows, and computes a sha256 only when asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import CheckpointError, WriteError, shown
from ..ipadapter_core.files.stored import reading
from ..ipadapter_core.files.writing import write_text
from ..ipadapter_core.spec import Variant
from .inspection import FileInfo, Inspector

EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# A stored index is dropped when what it can say of a file changes.
VERSION = f"4 {' '.join(variant.value for variant in Variant)}"
_CHUNK = 2**22
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One file as it was at the scan. folder: the kind of folder. name: below it, as the host's menus show it."""

    path: Path
    folder: str
    name: str
    size: int
    mtime_ns: int
    info: FileInfo


class Index:
    """What files are, by path, size and time, kept in the JSON file `store`, or in memory only. inspect: finds it out."""

    def __init__(self, store: Path | None = None, inspect: Callable[[Path], FileInfo] | None = None):
        self.store, self._inspect = store, inspect or Inspector()
        self._rows: dict[str, dict[str, Any]] = _read(store) if store else {}
        self._changed = False

    def scan(
        self, folders: Mapping[str, Sequence[Path]], extensions: Sequence[str] = EXTENSIONS
    ) -> list[Entry]:
        """Every model file below these folders; only new and changed ones are opened, and no pipes or devices."""
        entries = [
            self._entry(folder, name, path, found)
            for folder, roots in folders.items()
            for name, path, found in files_below(roots, tuple(extensions))
        ]
        self._save()
        return entries

    def inspect(self, path: Path) -> Entry:
        """One file, opened only if it is new or changed. Raises CheckpointError where there is none."""
        found = regular(path)
        if found is None:
            raise CheckpointError(
                f"{shown(path)} is no file that can be read. Put the file there or pick another one."
            )
        entry = self._entry("", path.name, path, found)
        self._save()
        return entry

    def sha256(self, entry: Entry) -> str:
        """Of the file's contents: computed on the first call, seconds for a large file, then remembered.

        '' where it cannot be read: one file must not stop a check of all.
        """
        row = self._rows.setdefault(str(entry.path), _row(entry))
        if not row.get("sha256"):
            try:
                row["sha256"] = file_sha256(entry.path)
            except CheckpointError as error:
                _log.warning("Image Prompt: %s", error)
                return ""
            self._changed = True
            self._save()
        return str(row["sha256"])

    def _entry(self, folder: str, name: str, path: Path, on_disk: os.stat_result) -> Entry:
        row = self._rows.get(str(path))
        known = _known(row, [on_disk.st_size, on_disk.st_mtime_ns]) if row else None
        entry = Entry(path, folder, name, on_disk.st_size, on_disk.st_mtime_ns, known or self._inspect(path))
        if known is None:
            self._rows[str(path)] = _row(entry)
            self._changed = True
        return entry

    def _save(self) -> None:
        """In one step, so that no one reads half an index. Where it cannot be written, the next start inspects again."""
        if not self._changed or self.store is None:
            return
        self._rows = {path: row for path, row in list(self._rows.items()) if os.path.exists(path)}
        try:
            write_text(self.store, json.dumps({"version": VERSION, "files": self._rows}))
            self._changed = False
        except WriteError as error:
            _log.info("Image Prompt: the index of model files is not kept: %s", error)


def file_sha256(path: Path) -> str:
    """Raises CheckpointError where it cannot be read."""
    digest = hashlib.sha256()
    with reading(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(entry: Entry) -> list[int]:
    return [entry.size, entry.mtime_ns]


def _row(entry: Entry) -> dict[str, Any]:
    return {"stamp": _stamp(entry), "info": entry.info.to_json(), "sha256": None}


def _known(row: dict[str, Any], stamp: list[int]) -> FileInfo | None:
    try:
        return FileInfo.from_json(row["info"]) if row["stamp"] == stamp else None
    # damaged, or of another version
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _read(store: Path) -> dict[str, dict[str, Any]]:
    """Rows of the stored index; none where it is missing, damaged or of another version."""
    try:
        data: Any = json.loads(store.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            return {}
        return {str(path): dict(row) for path, row in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def files_below(
    roots: Sequence[Path], extensions: tuple[str, ...]
) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(name below its root, path, stat) of every file with one of these extensions, in small letters.

    Links are followed, each folder is read once. Hidden folders are left out, and what is no regular file.
    """
    seen: set[str] = set()
    for root in roots:
        for folder, below, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names):
                if not name.rstrip().lower().endswith(extensions):
                    continue
                path = Path(folder, name)
                if found := regular(path):
                    yield path.relative_to(root).as_posix(), path, found


def regular(path: Path) -> os.stat_result | None:
    """The stat of a regular file. None for a broken link, which the host's menus leave out too, and for what would block
    its reader: pipes, sockets, devices."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None
