"""The loader that picks files by their contents, for the connected model and what the picture is to be used for."""

from __future__ import annotations

import logging
from typing import Any

from .. import host
from ..host import face_models, folders
from ..ipadapter_core.errors import MissingFileError
from ..ipadapter_core.spec import Variant
from ..model_files.choice import Missing, resolve
from ..model_files.released import Intent
from .entry import Node
from .inputs import CATEGORY, choice_input, lora_strength_input, model_input

log = logging.getLogger(__name__)


class ImagePromptAutoLoaderNode(Node):
    TITLE = "Image Prompt: Auto Loader"
    DESCRIPTION = (
        "Says what you want; finds the adapter (IPAdapter), its encoder and its LoRA among your files by what is in "
        "them, whatever they are called. If one is missing, the error says which file, from where, and into which folder."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["IPAdapter Unified Loader", "unified loader", "auto loader", "preset", "FaceID loader"]
    RETURN_TYPES = ("MODEL", "IPADAPTER", "CLIP_VISION", "STRING")
    RETURN_NAMES = ("model", "ipadapter", "clip_vision", "report")
    OUTPUT_TOOLTIPS = (
        "The model; with the LoRA of a FaceID adapter, if it has one.",
        "The adapter, for Encode Image or Encode Face.",
        "Its encoder. Empty for adapters that read face identities only.",
        "What was picked, and why.",
    )
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        intent = "What the picture is to be used for. The model's family is read from the model."
        return {
            "required": {
                "model": model_input(),
                "intent": choice_input(Intent, Intent.PLUS, intent),
            },
            "optional": {"lora_strength": lora_strength_input()},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, intent: str | None = None, **_: Any) -> str:
        return folders.goal_stamp(next((known for known in Intent if known.value == intent), None))

    def load(self, model: Any, intent: str, lora_strength: float = 1.0, node_id: str | None = None):
        index, family = folders.model_index(), host.base_family(model)
        entries = index.scan(folders.model_folders())
        found = resolve(entries, family, Intent(intent), index.sha256, face_models.installed())
        if isinstance(found, Missing):
            raise MissingFileError(found.text)
        report = f"{family}, {intent}: {found.reason}."
        log.info("Image Prompt: %s", report)
        host.show_status(node_id, report)
        ipadapter = host.load_adapter(found.adapter.path, Variant(found.variant))
        encoder = host.load_clip_vision(found.encoder.path) if found.encoder else None
        separate = host.lora_file(found.lora.path) if found.lora else None
        return (host.ensure_lora(model, ipadapter, lora_strength, separate), ipadapter, encoder, report)
