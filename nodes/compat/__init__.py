"""The node ids of the older packs, so that workflows made with them open and run: thin translations onto our core.

An id that another loaded pack has stays that pack's; a pack that loads later replaces ours by itself. A setting turns
the whole set off.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from functools import wraps
from importlib import import_module
from typing import Any

from ... import host
from . import settings
from .encoder_files import find_encoders
from .lora_files import find_loras
from .old_prompts import renew
from .page_names import ROUTE, names_meant
from .problem import problems

log = logging.getLogger(__name__)
_MODULES = (
    "apply",
    "tiled",
    "loaders",
    "encoder",
    "embeds",
    "pictures",
    "schedules",
    "regions",
    "first_generation",
    "first_pack",
    "copies",
    "art_venture",
    "transformer_packs",
    "sd3_packs",
    "problem",
)
_PACK = __name__.rsplit(".nodes.", 1)[0]
# Our node in place of an old id that no pack has: only where every required input has its counterpart.
# (old id, new id, new by old name of the inputs, widgets of the old one)
REPLACEMENTS = (
    ("IPAdapterModelLoader", "ImagePromptLoader", {"ipadapter_file": "ipadapter_file"}, ("ipadapter_file",)),
)


def node_classes() -> dict[str, type]:
    """All compatibility nodes by id, whether they are registered or not."""
    modules = (import_module(f"{__name__}.{name}") for name in _MODULES)
    return {node_id: node for module in modules for node_id, node in module.CLASSES.items()}


def register() -> dict[str, type]:
    """The ids that no other pack has, with their classes; none if the set is turned off. The log gets a line."""
    host.on_prompt(renew_prompt)
    host.answer_page(ROUTE, names_meant)
    for replacement in REPLACEMENTS:
        host.offer_replacement(*replacement)
    if not settings.enabled():
        log.info("Image Prompt: compatibility nodes are turned off; old ids are left alone.")
        return {}
    classes, owners = node_classes(), others(host.loaded_nodes())
    taken = {node_id: deprecated(node) for node_id, node in classes.items() if node_id not in owners}
    log.info("Image Prompt: %s.", _summary(len(taken), Counter(owners[i] for i in classes if i in owners)))
    return taken


def others(loaded: Mapping[str, type]) -> dict[str, str]:
    """Ids of other packs and of the host, with the pack's folder."""
    return {node_id: pack_of(node) for node_id, node in loaded.items() if not is_ours(node)}


def is_ours(node: type) -> bool:
    return node.__module__ == _PACK or node.__module__.startswith(f"{_PACK}.")


def pack_of(node: type) -> str:
    """Folder of the pack that a node class comes from, by the host's mark or its module's name."""
    where = str(getattr(node, "RELATIVE_PYTHON_MODULE", node.__module__))
    folder = re.search(r"custom_nodes[./\\]([^./\\]+)", where)
    return folder[1] if folder else where


# Mark of classes that `deprecated` has changed.
_WATCHES = "watches_exact_results"


def deprecated(node: type) -> type:
    """Out of the menus, and run again when the setting of exact results is changed."""
    node.DEPRECATED = True
    if _WATCHES in vars(node):
        return node
    setattr(node, _WATCHES, True)
    own = getattr(node, "IS_CHANGED", None) or (lambda _=None, **__: "")
    function = getattr(own, "__func__", own)

    @wraps(function)
    def changed(cls: type, *args: Any, **given: Any) -> Any:
        return f"{own(*args, **given)} exact legacy" if settings.exact_legacy() else own(*args, **given)

    node.IS_CHANGED = classmethod(changed)
    return node


def renew_prompt(prompt: host.Prompt) -> None:
    """Change a queued prompt of older versions in place, to what today's nodes read."""
    replaced = {old for old, *_ in REPLACEMENTS}
    for node in prompt.values():
        if isinstance(node, dict) and node.get("class_type") in replaced:
            # without it some hosts fail to replace a node
            node.setdefault("_meta", {})
    renew(prompt, host.loaded_nodes(), is_ours)
    find_encoders(prompt, host.loaded_nodes(), is_ours)
    find_loras(prompt, host.loaded_nodes(), is_ours)
    # the page's list of errors does not show a node's own message
    for node_id, sentence in problems(prompt):
        host.show_status(node_id, sentence)


def _summary(taken: int, left: Mapping[str, int]) -> str:
    if not left:
        return f"{taken} node ids of older packs are served"
    parts = ", ".join(f"{count} to {pack}" for pack, count in left.items())
    return (
        f"{taken} node ids of older packs are served, and {sum(left.values())} left to their owners ({parts})"
    )
