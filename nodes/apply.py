"""The node that adds an image prompt to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .. import host
from ..ipadapter_core.masking import Region, as_mask
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.timing import parse_curve, timing
from .entry import Node
from .inputs import (
    CATEGORY,
    fraction_input,
    image_prompt_input,
    lora_strength_input,
    model_input,
    weight_curve_input,
    weight_input,
    weight_type_input,
)


class ImagePromptApplyNode(Node):
    TITLE = "Image Prompt: Apply"
    DESCRIPTION = (
        "Adds an image prompt (IPAdapter) to a model. Chain several for several images, adapters or regions; "
        "the order does not matter."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "IPAdapter Advanced",
        "IPAdapter Embeds",
        "apply ipadapter",
        "regional image prompt",
        "attention mask",
    ]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = (
        "The model, steered by the image prompt; connect it to the sampler or a further Apply.",
    )
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        mask = "Region of the picture that the image steers: white is steered. Any size; one, or one for each picture."
        layers = "A weight for each attention block, from Image Prompt: Layer Weights."
        return {
            "required": {
                "model": model_input(),
                "image_prompt": image_prompt_input(),
                "weight": weight_input(),
                "start_at": fraction_input(0.0, "Fraction of sampling at which the image begins to steer."),
                "end_at": fraction_input(1.0, "Fraction of sampling at which it stops."),
                "weight_type": weight_type_input(),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": mask}),
                "layer_weights": ("LAYER_WEIGHTS", {"tooltip": layers}),
                "lora_strength": lora_strength_input(),
                "weight_curve": weight_curve_input(),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def apply(
        self,
        model: Any,
        image_prompt: ImagePrompt,
        weight: float,
        start_at: float = 0.0,
        end_at: float = 1.0,
        weight_type: str = "linear",
        mask: Tensor | None = None,
        layer_weights: Mapping[str, float] | None = None,
        lora_strength: float = 1.0,
        weight_curve: str = "",
        node_id: str | None = None,
    ):
        region = None if mask is None else Region(as_mask(mask))
        settings = host.ApplySettings(
            host.weights_for(model, image_prompt.adapter, weight, weight_type, layer_weights),
            timing(start_at, end_at, parse_curve(weight_curve)),
            region,
        )
        steered = host.add_prompt(model, image_prompt, settings)
        host.show_status(node_id, host.summary(model, steered))
        return (host.ensure_lora(steered, image_prompt.adapter, lora_strength) if weight else steered,)
