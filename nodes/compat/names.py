"""File names of old workflows: in another folder, with '\\' or another suffix, or of a file that has another name here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

from ...ipadapter_core.library.catalog import file_named
from ...ipadapter_core.library.choosing import alike_of, identify, named
from ...ipadapter_core.library.index import Entry, Index
from ...ipadapter_core.library.released import KnownFile
from .. import files

log = logging.getLogger(__name__)


def adapter_name(name: str) -> str:
    """The installed adapter that a workflow means: by its path, else its base name, else by the contents of files.

    A name that means no file is given back as it came, for `files.adapter_path` to say so.
    """
    installed = files.adapter_files()
    found = _by_name(name, installed) or _by_content(name)
    if found and found != name:
        log.info("Image Prompt: the workflow's adapter '%s' is %s here.", name, found)
    return found or name


def _by_name(name: str, installed: Sequence[str]) -> str | None:
    """First of: the name itself, the same path, the same base name, the same base name without its suffix."""
    for same in (str, _path, _base, _stem):
        if found := next((file for file in installed if same(file) == same(name)), None):
            return found
    return None


def _path(name: str) -> str:
    return PureWindowsPath(name.strip()).as_posix().lower()


def _base(name: str) -> str:
    return PurePosixPath(_path(name)).name


def _stem(name: str) -> str:
    return PurePosixPath(_path(name)).stem


def _by_content(name: str) -> str | None:
    """The file that has the contents of the released one of this name: by sha256, else by layout and words."""
    known = file_named(name)
    if known is None:
        return None
    index = files.model_index()
    alike = [e for e in index.scan(files.model_folders(files.ADAPTERS)) if known in alike_of(e)]
    return next((entry.name for entry in alike if _is(entry, known, index)), None)


def _is(entry: Entry, known: KnownFile, index: Index) -> bool:
    identified = identify(entry, alike_of(entry), index.sha256)
    return known is (identified or named(entry, alike_of(entry)))
