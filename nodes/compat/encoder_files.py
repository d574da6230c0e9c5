"""A CLIPVisionLoader whose file is not installed, feeding our nodes: the installed file of the same encoder, or a sentence.

This is done when a prompt is queued, before the host refuses the name. Another kind of encoder never takes its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ... import host
from ...host import folders
from ...ipadapter_core.errors import ImagePromptError
from ...ipadapter_core.spec import Feature
from ...model_files.encoder_names import EncoderNeed, encoder_for
from ...model_files.inspection import AdapterFacts
from ...model_files.nearest import same_path
from .. import names
from .problem import PROBLEM, refuse

log = logging.getLogger(__name__)
Node = dict[str, Any]
Prompt = Mapping[str, Node]

LOADER, NAME = "CLIPVisionLoader", "clip_name"
# Outputs of nodes that stand between.
_PASSES_ON = ("CLIP_VISION", "CLIP_VISION_OUTPUT", "*")
_ADAPTER_NAMES = ("ipadapter_file", "model_name", "ipadapter", "ip_adapter_name")


def find_encoders(prompt: Prompt, classes: Mapping[str, type], is_ours: Callable[[type], bool]) -> None:
    """Change a queued prompt in place: names of files that are not installed, where they feed nodes of ours."""
    ours = {node_id for node_id, node in _nodes(prompt) if _is_ours(node, classes, is_ours)}
    for node_id, node in _nodes(prompt):
        wanted = node["inputs"].get(NAME)
        if (
            node.get("class_type") != LOADER
            or not isinstance(wanted, str)
            or wanted in folders.menu_of("clip_vision")
        ):
            continue
        if users := [prompt[user] for user in _users(prompt, node_id, classes) if user in ours]:
            _replace_file(node_id, node, wanted, _need(prompt, users, ours), PROBLEM in classes)


def _replace_file(node_id: str, node: Node, wanted: str, need: EncoderNeed, can_refuse: bool) -> None:
    entries = folders.model_index().scan(folders.model_folders("clip_vision"))
    found, text = encoder_for(wanted, need, entries)
    if found is not None:
        node["inputs"][NAME] = same_path(found.name, folders.menu_of("clip_vision")) or found.name
        log.info("Image Prompt: %s", text)
        host.show_status(node_id, text)
    elif can_refuse:
        refuse(node, text)


def _nodes(prompt: Prompt) -> Iterator[tuple[str, Node]]:
    """(id, node) of all that may be nodes, in a prompt that has not been checked."""
    for node_id, node in prompt.items():
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
            yield node_id, node


def _is_ours(node: Node, classes: Mapping[str, type], is_ours: Callable[[type], bool]) -> bool:
    known = classes.get(str(node.get("class_type")))
    return known is not None and is_ours(known)


def _users(prompt: Prompt, source: str, classes: Mapping[str, type]) -> set[str]:
    """Nodes that get this one's output, through nodes that pass it on."""
    found: set[str] = set()
    open_ends = [source]
    while open_ends:
        end = open_ends.pop()
        for node_id, node in _nodes(prompt):
            if node_id in found or not any(_links_to(value, end) for value in node["inputs"].values()):
                continue
            found.add(node_id)
            outputs = getattr(classes.get(str(node.get("class_type"))), "RETURN_TYPES", ())
            if any(kind in outputs for kind in _PASSES_ON):
                open_ends.append(node_id)
    return found


def _links_to(value: Any, node_id: str) -> bool:
    return isinstance(value, list) and len(value) == 2 and str(value[0]) == str(node_id)


def _need(prompt: Prompt, users: list[Node], ours: set[str]) -> EncoderNeed:
    """What the adapters of these nodes read; of the whole prompt, where theirs are not known."""
    near = [_upstream(prompt, user) for user in users]
    facts = [known for node in near if node and (known := _adapter_facts(node))]
    if not facts:
        facts = [known for node_id in sorted(ours) if (known := _adapter_facts(prompt[node_id]))]
    return EncoderNeed(
        frozenset(known.encoder for known in facts if known.feature != Feature.NONE.value),
        any(known.feature == Feature.IMAGE_EMBEDS.value for known in facts),
    )


def _upstream(prompt: Prompt, user: Node) -> Node | None:
    """The node that names the adapter's file: this one, or the one that its ipadapter comes from."""
    if any(isinstance(user["inputs"].get(name), str) for name in _ADAPTER_NAMES):
        return user
    link = user["inputs"].get("ipadapter")
    node = prompt.get(str(link[0])) if isinstance(link, list) and link else None
    return node if isinstance(node, dict) and isinstance(node.get("inputs"), dict) else None


def _adapter_facts(node: Node) -> AdapterFacts | None:
    name = next((value for key in _ADAPTER_NAMES if isinstance(value := node["inputs"].get(key), str)), None)
    if name is None:
        return None
    try:
        return folders.model_index().inspect(Path(names.adapter_path(name))).info.adapter
    # the node itself reports it
    except ImagePromptError:
        return None
