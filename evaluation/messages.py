"""ComfyUI's messages about a workflow, from its server or its code: saved pictures, refusals, failures.

Their shape is always checked: they may come from any server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from ..ipadapter_core.errors import SettingError, shown

MOST_PICTURES = 16
TYPES = ("output", "temp", "input")
# filename, subfolder, type
SavedImage = dict[str, str]


def saved_images(outputs: Any) -> list[SavedImage] | None:
    """The pictures that output nodes saved, or previews where none was saved. None for another shape.

    Raises SettingError for too many, before one is fetched.
    """
    if not isinstance(outputs, Mapping) or not all(isinstance(each, Mapping) for each in outputs.values()):
        return None
    lists = [output.get("images") or [] for output in outputs.values()]
    if not all(isinstance(each, list) for each in lists):
        return None
    found = [_saved_image(image) for images in lists for image in images]
    images = [image for image in found if image is not None]
    if len(images) < len(found):
        return None
    kept = [image for image in images if image["type"] == "output"] or images
    if len(kept) > MOST_PICTURES:
        raise SettingError(f"the workflow saved {len(kept)} pictures for one seed. Let it save one.")
    return kept


def _saved_image(image: Any) -> SavedImage | None:
    if not isinstance(image, Mapping):
        return None
    saved = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
    if not all(isinstance(value, str) for value in saved.values()) or saved["type"] not in ("", *TYPES):
        return None
    return saved if saved["filename"] and _below(saved["subfolder"]) and _below(saved["filename"]) else None


def _below(name: str) -> bool:
    """Whether it is a plain relative path on every system."""
    path = PureWindowsPath(name)
    return name.isprintable() and not path.anchor and ".." not in path.parts


def refusal_words(error: Any, node_errors: Any) -> str:
    """What is wrong with a graph, by node; '' without a message."""
    nodes = node_errors.items() if isinstance(node_errors, Mapping) else ()
    messages = [
        f"node {number} ({node.get('class_type')}): {_message(each)}"
        for number, node in nodes
        if isinstance(node, Mapping)
        for each in _list(node.get("errors"))
    ]
    return shown("; ".join(messages) or _message(error), 1000)


def failure(messages: Any) -> str:
    """Why a workflow failed while it ran."""
    for each in _list(messages):
        kind, details = each if isinstance(each, list | tuple) and len(each) == 2 else ("", None)
        if kind == "execution_error" and isinstance(details, Mapping):
            # an AssertionError has no message
            why = (
                str(details.get("exception_message") or "").strip()
                or details.get("exception_type")
                or "failed"
            )
            return shown(" ".join(f"{details.get('node_type')}: {why}".split()), 1000)
        if kind == "execution_interrupted":
            return "the workflow was interrupted. Run this again to go on."
    return "the workflow failed; see the server's log."


def _message(error: Any) -> str:
    if not isinstance(error, Mapping):
        return error if isinstance(error, str) else ""
    return " ".join(str(error.get(key) or "") for key in ("message", "details")).strip()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
