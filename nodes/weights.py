"""The node of weights by attention block."""

from __future__ import annotations

from typing import Any

from .. import host
from ..ipadapter_core.blocks import block_weights, labels_in_words, weights_in_words
from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.families.site import block_labels
from ..ipadapter_core.families.table import family_of
from .entry import Node
from .inputs import CATEGORY, model_input, weight_input
from .page_blocks import blocks_to_draw

# Blocks with attention in SD1.5 or SDXL, as the UNet runs them.
_INPUT, _OUTPUT = (1, 2, 4, 5, 7, 8), range(12)
NAMES = [f"input {n}" for n in _INPUT] + ["middle"] + [f"output {n}" for n in _OUTPUT]
_NOTES = {
    "input 7": "SD1.5 and SDXL: layout.",
    "input 8": "SDXL: composition (InstantStyle's layout block).",
    "output 1": "SDXL: style (InstantStyle's style block).",
}


class ImagePromptLayerWeightsNode(Node):
    TITLE = "Image Prompt: Layer Weights"
    DESCRIPTION = (
        "A weight for each attention block. SD1.5 has input 1, 2, 4, 5, 7, 8, middle and output 3-11; "
        "SDXL has input 4, 5, 7, 8, middle and output 0-5. Leave blocks your model does not have at 1. Flux.1 and Chroma "
        "have double 0-18 and single 0-37: write those into 'blocks'."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["layer weights", "block weights", "mad scientist", "IPAdapter MS", "InstantStyle"]
    RETURN_TYPES = ("LAYER_WEIGHTS", "STRING")
    RETURN_NAMES = ("layer_weights", "summary")
    OUTPUT_TOOLTIPS = (
        "Weights by block, for Apply.",
        "The blocks of the connected model and their weights, as text.",
    )
    FUNCTION = "weigh"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        blocks = {
            n.replace(" ", "_"): weight_input(f"Weight of {n}. {_NOTES.get(n, '')}".strip()) for n in NAMES
        }
        tip = (
            "Blocks by name, for any model: 'double 3: 0.5, double 5-8: 0.2, single: 0' or 'all: 0, input 8: 1'. Of two "
            "that name one block the later counts."
        )
        text = ("STRING", {"default": "", "multiline": True, "tooltip": tip})
        return {"required": {"model": model_input(), **blocks}, "optional": {"blocks": text}}

    def weigh(self, model: Any, blocks: str = "", **weights: float):
        sites = host.model_sites(model)
        names, family = block_labels(sites), family_of(sites)
        chosen = {key.replace("_", " "): value for key, value in weights.items()}
        absent = [name for name, value in chosen.items() if name not in names and value != 1.0]
        if absent:
            there = labels_in_words(names)
            raise SettingError(
                f"{family.name} has no attention block {' or '.join(absent)}; it has {there}. Set the others to 1."
            )
        own = {name: chosen.get(name, 1.0) for name in names} | block_weights(blocks, names, family.name)
        summary = f"{family.name}: {weights_in_words(own)}"
        shown = {"text": [summary], "blocks": [blocks_to_draw(family, names)]}
        return {"ui": shown, "result": (own, summary)}
