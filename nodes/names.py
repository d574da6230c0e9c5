"""The installed files that the names of a graph mean: one way for all loaders, our own and those of older packs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host import face_models, folders
from ..ipadapter_core.errors import ImagePromptError, shown
from ..model_files.catalog import file_named
from ..model_files.choice import alike_of, identify, named
from ..model_files.index import Entry, Index
from ..model_files.nearest import resolve
from ..model_files.released import KnownFile

log = logging.getLogger(__name__)


def adapter_name(name: str) -> str:
    """The menu's name of the adapter that a graph means: by its name as `resolve` reads it, else by the contents of files.

    A name that means no file is given back as it came, for `folders.adapter_path` to say so.
    """
    name = str(name)  # a linked value may be a number
    found = resolve(name, folders.adapter_files()) or _by_content(name, folders.ADAPTERS)
    if found and found != name:
        log.info("Image Prompt: the workflow's adapter '%s' is %s here.", shown(name), shown(found))
    return found or name


def adapter_path(name: str) -> str:
    """Its path. Raises MismatchError that names the nearest files, and where to get a released one."""
    return folders.adapter_path(adapter_name(name))


def adapter_stamp(name: str | None) -> str:
    """Changes when its file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    return folders.adapter_stamp(None if name is None else adapter_name(name))


def face_model_stamp(name: str | None) -> str:
    """The same of a face model."""
    return face_models.stamp(
        None if name is None else resolve(str(name), list(face_models.by_name())) or str(name)
    )


def lora_name(name: str) -> str | None:
    """The host's name of the LoRA that a graph means: by its name, else by the contents of files; None if none is."""
    return resolve(name, folders.menu_of("loras")) or _by_content(name, "loras")


def face_model_path(name: str) -> Path:
    """Folder of the face model that a graph means. Raises MissingFileError."""
    return face_models.path_of(resolve(str(name), list(face_models.by_name())) or str(name))


def problem(find: Callable[[Any], Any], value: Any) -> bool | str:
    """For VALIDATE_INPUTS: True, or what `find` says is wrong with a value. A linked one is not known yet."""
    try:
        return True if value is None or find(value) else "is not known"
    except ImagePromptError as error:
        return str(error)


def _by_content(name: str, folder: str) -> str | None:
    """The file in a folder with the contents of the released one of this name: by sha256, else by layout and words."""
    known = file_named(name)
    if known is None:
        return None
    index = folders.model_index()
    alike = [e for e in index.scan(folders.model_folders(folder)) if known in alike_of(e)]
    return next((entry.name for entry in alike if _is(entry, known, index)), None)


def _is(entry: Entry, known: KnownFile, index: Index) -> bool:
    identified = identify(entry, alike_of(entry), index.sha256)
    return known is (identified or named(entry, alike_of(entry)))
