"""For the page: which files of its menus the names in an opened graph mean, so that it does not report them missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...host import face_models, folders, saved
from ...model_files.nearest import match_name, same_path

# Of the server; requested by web/js/image_prompt.js.
ROUTE = "/image_prompt/names"
_MOST_NAMES, _LONGEST = 2000, 500
# Inputs that name an adapter or an encoder, in our nodes and those of older packs.
_ADAPTERS = ("ipadapter_file", "ipadapter", "ipadatper", "ip_adapter_name")
_ENCODERS = ("clip_vision", "clip_name")
Find = Callable[[str], "str | None"]


def names_meant(asked: Any) -> dict[str, dict[str, str]]:
    """By input: the file of its menu for each name that means another one. asked: a list of names in a graph."""
    names = (
        [name for name in asked if isinstance(name, str) and len(name) <= _LONGEST]
        if isinstance(asked, list)
        else []
    )
    found = {
        name: {wanted: file for wanted in dict.fromkeys(names[:_MOST_NAMES]) if (file := find(wanted))}
        for name, find in _finders().items()
    }
    return {name: {old: new for old, new in pairs.items() if old != new} for name, pairs in found.items()}


def _finders() -> dict[str, Find]:
    """By the input's name. Each menu is listed once."""
    adapters, encoders = folders.adapter_files(), folders.menu_of("clip_vision")
    faces, prompts = list(face_models.by_name()), list(saved.saved_prompts())
    return {
        **dict.fromkeys(_ADAPTERS, lambda name: match_name(name, adapters)),
        **dict.fromkeys(_ENCODERS, lambda name: match_name(name, encoders)),
        "model_name": lambda name: match_name(name, adapters) or match_name(name, faces),
        "face_model": lambda name: match_name(name, faces),
        "embeds": saved.embeds_name,
        "prompt_file": lambda name: same_path(name, prompts),
    }
