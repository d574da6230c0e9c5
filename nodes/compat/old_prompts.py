"""Queued prompts of older versions, before the host checks them: ids of another meaning, old values, missing inputs.

For files opened in the page, web/js/image_prompt.js does the same; prompts that programs queue come as they were saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .old_forms import renew_form
from .problem import PROBLEM, refuse

Node = dict[str, Any]
Menu = tuple[Any, ...]

FIRST_ENCODER, FIRST_ENCODER_HERE = "IPAdapterEncoder", "ImagePromptLegacyEncoder"
FIRST_APPLY, FIRST_APPLY_HERE = "IPAdapter", "ImagePromptLegacyApply"
# Names of inputs until October 2023.
_OLDEST_NAMES = {"image": "image_1", "plus": "ipadapter_plus"}
_OF_FIRST_APPLY = ("model_name", "clip_vision", "clip_vision_output", "dtype", "mask")
_OF_LATER_APPLY = ("start_at", "end_at", "weight_type")
_VALUES = ("INT", "FLOAT", "STRING", "BOOLEAN")
# By input: the new value of one that is no longer in its menu, and of other inputs that it decides too.
OLD_VALUES: dict[str, dict[str, dict[str, str]]] = json.loads(
    (Path(__file__).parents[2] / "web" / "js" / "old_values.json").read_text(encoding="utf-8")
)
# Required inputs that did not exist from the start. API prompts saved before lack them, and mean their defaults.
ADDED_LATER = (
    "noise", "weight_type", "start_at", "end_at", "unfold_batch", "faceid_v2", "weight_v2",
    "embeds_scaling", "encode_batch_size", "model_name", "start_percent", "end_percent",
)  # fmt: skip


def renew(prompt: Mapping[str, Node], classes: Mapping[str, type], is_ours: Callable[[type], bool]) -> None:
    """Change a prompt in place. classes: all that the host has; only nodes that are ours have their inputs changed."""
    for node in prompt.values():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            continue
        _retype(node, classes)
        renew_form(node, classes)
        known = classes.get(node.get("class_type", ""))
        if known is not None and is_ours(known):
            declared = known.INPUT_TYPES()
            _complete(node["inputs"], declared)
            if PROBLEM in classes and getattr(known, "DEPRECATED", False):
                _refuse_without_values(node, known, declared.get("required", {}))


def is_first_encoder(node: Mapping[str, Any]) -> bool:
    """Whether this is the encoder of the first generation: its id has another meaning since March 2024."""
    inputs = node["inputs"]
    return node.get("class_type") == FIRST_ENCODER and (
        not inputs.keys().isdisjoint(("image_1", "ipadapter_plus", "weight_1")) or "plus" in inputs
    )


def is_first_apply(node: Mapping[str, Any]) -> bool:
    """Whether this is the node of 2023 that had the id first: it chose its file itself.

    A converter that knows today's node gives its values the names of ours: its file stands in start_at.
    """
    inputs = node["inputs"]
    if node.get("class_type") != FIRST_APPLY or "ipadapter" in inputs:
        return False
    if not inputs.keys().isdisjoint(_OF_FIRST_APPLY) or _is_text(inputs.get("start_at")):
        return True
    return "image" in inputs and inputs.keys().isdisjoint(_OF_LATER_APPLY)


def _is_text(value: Any) -> bool:
    """A text that is no number."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _retype(node: Node, classes: Mapping[str, type]) -> None:
    """Nodes whose id has another meaning today, unless the host has the older node itself."""
    inputs = node["inputs"]
    if _replaces(FIRST_ENCODER_HERE, FIRST_ENCODER, "image_1", classes) and is_first_encoder(node):
        node["class_type"] = FIRST_ENCODER_HERE
        node["inputs"] = {_OLDEST_NAMES.get(name, name): value for name, value in inputs.items()}
    elif _replaces(FIRST_APPLY_HERE, FIRST_APPLY, "model_name", classes) and is_first_apply(node):
        node["class_type"] = FIRST_APPLY_HERE
        node["inputs"] = {"model_name": "", "dtype": "fp16"} | _by_first_names(inputs)


def _replaces(ours: str, old: str, own_input: str, classes: Mapping[str, type]) -> bool:
    """Whether `ours` stands for the older node: it is there, and the host's node of the old id lacks that one's input."""
    declared = getattr(classes.get(old), "INPUT_TYPES", dict)()
    return ours in classes and not any(own_input in section for section in declared.values())


def _by_first_names(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a converter named by position, with the names of today's node."""
    renamed = {name: value for name, value in inputs.items() if name not in _OF_LATER_APPLY}
    moved = {"model_name": inputs.get("start_at"), "dtype": inputs.get("end_at")}
    return {name: value for name, value in moved.items() if _is_text(value)} | renamed


def _refuse_without_values(node: Node, known: type, required: Mapping[str, Any]) -> None:
    """A sentence where values are missing: a converter that does not know this node left them out."""
    missing = [name for name in required if _lacks(node["inputs"], name, required[name][0])]
    if missing:
        title = getattr(known, "TITLE", known.__name__)
        refuse(
            node,
            f"'{title}' came without its values {', '.join(missing)}. A converter that does not know this older node left "
            "them out: open the workflow in the ComfyUI page and save it with 'Export (API)', or add them to the prompt.",
        )


def _lacks(inputs: Mapping[str, Any], name: str, kind: Any) -> bool:
    """Whether a widget's value is missing, or is the empty choice of a menu. The host itself reports missing links."""
    if isinstance(kind, list | tuple):
        return inputs.get(name, "") == ""
    return kind in _VALUES and name not in inputs


def _complete(inputs: dict[str, Any], declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Old values by their new names, and defaults for required inputs that did not exist when this was saved."""
    required = declared.get("required", {})
    for name, renamed in OLD_VALUES.items():
        menu, value = _menu(required, name), inputs.get(name)
        if menu and isinstance(value, str) and value not in menu and value in renamed:
            inputs.update({key: new for key, new in renamed[value].items() if new in _menu(required, key)})
    for name in ADDED_LATER:
        if name in required and name not in inputs:
            inputs[name] = _default(*required[name])


def _menu(required: Mapping[str, Any], name: str) -> Menu:
    kind = required.get(name, (None,))[0]
    return tuple(kind) if isinstance(kind, list | tuple) else ()


def _default(kind: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Of a widget: what it says, else the first of its menu."""
    return (options or {}).get("default", kind[0])
