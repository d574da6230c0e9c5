"""An index of model files: each is looked at once and remembered until its size or time changes.

The index never decides by name, opens no file that it knows, and computes a sha256 only when asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec import Variant
from .findings import Finding, look

EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# What is known of files is thrown away when what can be known changes.
VERSION = f"1 {' '.join(variant.value for variant in Variant)}"
_CHUNK = 2**22
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One file as it was at the scan. folder: which of the scanned. name: below it, as the host's menus show it."""

    path: Path
    folder: str
    name: str
    size: int
    mtime_ns: int
    finding: Finding


class Index:
    """Findings by path, size and time, kept in the JSON file `store`, or in memory only."""

    def __init__(self, store: Path | None = None):
        self.store = store
        self._rows: dict[str, dict[str, Any]] = _read(store) if store else {}
        self._changed = False

    def scan(self, folders: Mapping[str, Sequence[Path]]) -> list[Entry]:
        """Every model file below these folders; only new and changed ones are opened."""
        entries = [
            self._entry(folder, name, path, stat)
            for folder, roots in folders.items()
            for name, path, stat in _files(roots)
        ]
        self._save()
        return entries

    def look_at(self, path: Path) -> Entry:
        """One file, opened only if it is new or changed."""
        entry = self._entry("", path.name, path, path.stat())
        self._save()
        return entry

    def sha256(self, entry: Entry) -> str:
        """Of the file's contents: computed on the first call, seconds for a large file, then remembered."""
        row = self._rows.setdefault(str(entry.path), _row(entry))
        if not row.get("sha256"):
            row["sha256"] = file_sha256(entry.path)
            self._changed = True
            self._save()
        return str(row["sha256"])

    def _entry(self, folder: str, name: str, path: Path, stat: os.stat_result) -> Entry:
        row = self._rows.get(str(path))
        known = _known(row, [stat.st_size, stat.st_mtime_ns]) if row else None
        entry = Entry(path, folder, name, stat.st_size, stat.st_mtime_ns, known or look(path))
        if known is None:
            self._rows[str(path)] = _row(entry)
            self._changed = True
        return entry

    def _save(self) -> None:
        """In one step, so that no one reads half an index. Where it cannot be written, the next start looks again."""
        if not self._changed or self.store is None:
            return
        self._rows = {path: row for path, row in self._rows.items() if os.path.exists(path)}
        try:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=self.store.name, dir=self.store.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, "files": self._rows}, file)
            os.replace(temporary, self.store)
            self._changed = False
        except OSError as error:
            _log.info(
                "Image Prompt: the index of model files could not be written to %s (%s)", self.store, error
            )


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(entry: Entry) -> list[int]:
    return [entry.size, entry.mtime_ns]


def _row(entry: Entry) -> dict[str, Any]:
    return {"stamp": _stamp(entry), "finding": entry.finding.to_json(), "sha256": None}


def _known(row: dict[str, Any], stamp: list[int]) -> Finding | None:
    try:
        return Finding.from_json(row["finding"]) if row["stamp"] == stamp else None
    except (KeyError, TypeError, ValueError, AttributeError):  # damaged, or of another version
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


def _files(roots: Sequence[Path]) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(name below its root, path, stat) of every model file, links followed, each folder once."""
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
                path = Path(folder, name)
                stat = _stat(path) if path.suffix.strip().lower() in EXTENSIONS else None
                if stat is not None:
                    yield path.relative_to(root).as_posix(), path, stat


def _stat(path: Path) -> os.stat_result | None:
    """None for a link to nowhere, which the host's menus leave out too."""
    try:
        return path.stat()
    except OSError:
        return None
