"""For the page: the blocks of the model behind a node, which it draws as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import host
from ..host import folders
from ..ipadapter_core.families.family import Family
from ..model_files.base_models import base_blocks

# Requested by web/js/layer_weights.js.
ROUTE = "/image_prompt/blocks"
# Folders of base models, by the inputs of the nodes that load them.
_FOLDERS = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models"}


def blocks_to_draw(family: Family, labels: Sequence[str]) -> dict[str, Any]:
    """style and composition: weights of the blocks that are known to carry them; the others have 0."""
    return {
        "family": family.name,
        "blocks": list(labels),
        "style": dict(family.style),
        "composition": dict(family.composition),
    }


def blocks_of(asked: Any) -> dict[str, Any]:
    """asked: {"input": of the node that loads the model, "name": of the file}. Empty where its family is not known."""
    kind, name = (asked.get(key) for key in ("input", "name")) if isinstance(asked, dict) else (None, None)
    path = folders.installed(_FOLDERS[kind], name) if kind in _FOLDERS and isinstance(name, str) else None
    found = base_blocks(path) if path else None
    return blocks_to_draw(found.family, found.labels) if found else {}


host.answer_page(ROUTE, blocks_of)
