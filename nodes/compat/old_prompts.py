"""Queued prompts of older versions, before the host checks them: nodes of another meaning, old values, missing inputs.

For files that are opened in the page it does the same (web/js/image_prompt.js); prompts that programs queue come as they
were saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Node = dict[str, Any]
Menu = tuple[Any, ...]

FIRST_ENCODER, FIRST_ENCODER_HERE = "IPAdapterEncoder", "ImagePromptLegacyEncoder"
_OLDEST_NAMES = {"image": "image_1", "plus": "ipadapter_plus"}  # until October 2023
# By input: what a value that is no longer in its menu is called now; it may speak of another input too.
OLD_VALUES: dict[str, dict[str, dict[str, str]]] = json.loads(
    (Path(__file__).parents[2] / "web" / "js" / "old_values.json").read_text(encoding="utf-8")
)
# Required inputs that did not exist from the start. API prompts saved before lack them, and mean their defaults.
ADDED_LATER = (
    "noise", "weight_type", "start_at", "end_at", "unfold_batch", "faceid_v2", "weight_v2",
    "embeds_scaling", "encode_batch_size", "model_name",
)  # fmt: skip


def renew(prompt: Mapping[str, Node], classes: Mapping[str, type], is_ours: Callable[[type], bool]) -> None:
    """Change a prompt in place. classes: all that the host has; only nodes that are ours have their inputs changed."""
    for node in prompt.values():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            continue
        if FIRST_ENCODER_HERE in classes and is_first_encoder(node):
            _retype(node)
        known = classes.get(node["class_type"])
        if known is not None and is_ours(known):
            _complete(node["inputs"], known.INPUT_TYPES())


def is_first_encoder(node: Mapping[str, Any]) -> bool:
    """Whether this is the encoder of the first generation: its id has another meaning since March 2024."""
    inputs = node["inputs"]
    return node.get("class_type") == FIRST_ENCODER and (
        not inputs.keys().isdisjoint(("image_1", "ipadapter_plus", "weight_1")) or "plus" in inputs
    )


def _retype(node: Node) -> None:
    node["class_type"] = FIRST_ENCODER_HERE
    node["inputs"] = {_OLDEST_NAMES.get(name, name): value for name, value in node["inputs"].items()}


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
