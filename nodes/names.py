"""The installed files that names in a graph mean: one way for all loaders, our own and those of older packs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host import face_models, folders
from ..ipadapter_core.errors import ImagePromptError, shown
from ..model_files.catalog import file_named
from ..model_files.identification import guess_by_name, identify, look_alikes
from ..model_files.index import Entry, Index
from ..model_files.nearest import match_name
from ..model_files.released import KnownFile

log = logging.getLogger(__name__)


def adapter_name(name: str) -> str:
    """The menu's name of the adapter that a graph means: by `match_name`, else by the contents of files.

    A name that means no file is returned as it came; `folders.adapter_path` then raises.
    """
    # a linked value may be a number
    name = str(name)
    found = match_name(name, folders.adapter_files()) or _by_content(name, folders.ADAPTERS)
    if found and found != name:
        log.info("Image Prompt: the workflow's adapter '%s' is %s here.", shown(name), shown(found))
    return found or name


def adapter_path(name: str) -> str:
    """Its path. Raises MissingFileError with the nearest names, and where to get a released file."""
    return folders.adapter_path(adapter_name(name))


def adapter_stamp(name: str | None) -> str:
    """Changes when its file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    return folders.adapter_stamp(None if name is None else adapter_name(name))


def face_model_stamp(name: str | None) -> str:
    """The same of a face model."""
    return face_models.stamp(
        None if name is None else match_name(str(name), list(face_models.by_name())) or str(name)
    )


def lora_name(name: str) -> str | None:
    """The host's name of the LoRA that a graph means: by its name, else by the contents of files; None if none is."""
    return match_name(name, folders.menu_of("loras")) or _by_content(name, "loras")


def face_model_path(name: str) -> Path:
    """Folder of the face model that a graph means. Raises MissingFileError."""
    return face_models.path_of(match_name(str(name), list(face_models.by_name())) or str(name))


def problem(find: Callable[[Any], Any], value: Any) -> bool | str:
    """For VALIDATE_INPUTS: True, or the message of what `find` raises. A linked value is not known yet (None)."""
    try:
        return True if value is None or find(value) else "is not known"
    except ImagePromptError as error:
        return str(error)


def _by_content(name: str, folder: str) -> str | None:
    """The file in a folder with the contents of the released one of this name: by sha256, else by layout and name."""
    known = file_named(name)
    if known is None:
        return None
    index = folders.model_index()
    alike = [e for e in index.scan(folders.model_folders(folder)) if known in look_alikes(e)]
    return next((entry.name for entry in alike if _is_file(entry, known, index)), None)


def _is_file(entry: Entry, known: KnownFile, index: Index) -> bool:
    identified = identify(entry, look_alikes(entry), index.sha256)
    return known is (identified or guess_by_name(entry, look_alikes(entry)))
