"""A LoRA loader that names a LoRA of FaceID which is not installed: the same file under its name here, or a sentence.

This is done when a prompt with nodes of ours is queued, before the host refuses the name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ... import host
from ...host import folders
from ...model_files.catalog import file_named
from ...model_files.nearest import list_nearest, same_path
from ...model_files.released import Kind
from .. import names
from .problem import PROBLEM, refuse

log = logging.getLogger(__name__)
LOADERS, NAME = ("LoraLoader", "LoraLoaderModelOnly"), "lora_name"


def find_loras(
    prompt: Mapping[str, Any], classes: Mapping[str, type], is_ours: Callable[[type], bool]
) -> None:
    """Change a queued prompt in place; one without a node of ours is left alone."""
    nodes = {i: n for i, n in prompt.items() if isinstance(n, dict) and isinstance(n.get("inputs"), dict)}
    known = (classes.get(str(node.get("class_type"))) for node in nodes.values())
    if not any(node is not None and is_ours(node) for node in known):
        return
    for node_id, node in nodes.items():
        wanted = node["inputs"].get(NAME)
        if (
            node.get("class_type") in LOADERS
            and isinstance(wanted, str)
            and wanted not in folders.menu_of("loras")
        ):
            _replace_file(node_id, node, wanted, PROBLEM in classes)


def _replace_file(node_id: str, node: dict[str, Any], wanted: str, can_refuse: bool) -> None:
    released = file_named(wanted)
    if released is None or released.kind is not Kind.LORA:
        return
    found = names.lora_name(wanted)
    if found is not None:
        node["inputs"][NAME] = same_path(found, folders.menu_of("loras")) or found
        text = f"LoRA '{wanted}' is {node['inputs'][NAME]} here."
        log.info("Image Prompt: %s", text)
        host.show_status(node_id, text)
    elif can_refuse:
        there = list_nearest(wanted, folders.menu_of("loras"), 4)
        refuse(node, f"LoRA '{wanted}' is not installed. LoRAs found: {there}. Get {released.download_hint}.")
