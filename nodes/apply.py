"""Nodes that patch a model with image prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .. import host
from ..host import folders
from ..ipadapter_core.masking import Region, as_mask
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.spec import Identity
from ..ipadapter_core.timing import parse_curve, timing
from . import names
from .entry import Node
from .faces import face_model_for, find_faces
from .inputs import (
    CATEGORY,
    adapter_file_input,
    clip_vision_input,
    fraction_input,
    image_input,
    image_prompt_input,
    lora_strength_input,
    model_input,
    weight_curve_input,
    weight_input,
    weight_type_input,
)
from .loaders import AdapterFileNode


class ImagePromptNode(AdapterFileNode):
    KINDS = {
        "clip_vision": lambda value, name: value
    }  # FaceID adapters need none; looked at where it is read
    TITLE = "Image Prompt"
    DESCRIPTION = (
        "A picture as a prompt (IP-Adapter): goes between the checkpoint loader and the sampler. "
        "For masks, several images or timing use Load Adapter, Encode Image and Apply."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "ipadapter",
        "ip-adapter",
        "IPAdapter",
        "image prompt",
        "reference image",
        "style transfer",
        "style",
        "face",
    ]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model, steered by the image; connect it to the sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": model_input(),
                "clip_vision": clip_vision_input(),
                "image": image_input(),
                "ipadapter_file": adapter_file_input(folders.adapter_files()),
                "weight": weight_input(),
            }
        }

    def apply(self, model: Any, clip_vision: Any, image: Tensor, ipadapter_file: str, weight: float):
        path = names.adapter_path(ipadapter_file)
        ipadapter = host.load_adapter(path, folders.adapter_variant(path))
        host.check_model(model, ipadapter)
        with folders.suggest_encoder(ipadapter.spec):
            prompt = self._encode(ipadapter, clip_vision, image)
        steered = host.apply_prompt(model, prompt, weight)
        return (host.ensure_lora(steered, ipadapter) if weight else steered,)

    @staticmethod
    def _encode(ipadapter: host.HostAdapter, clip_vision: Any, image: Tensor) -> ImagePrompt:
        if ipadapter.spec.identity is Identity.NONE:
            return host.encode_prompt(ipadapter, clip_vision, host.Reference(image))
        faces, _ = find_faces(image, face_model_for(ipadapter.spec))
        return host.encode_faces(ipadapter, clip_vision, faces)


class ImagePromptApplyNode(Node):
    TITLE = "Image Prompt: Apply"
    DESCRIPTION = (
        "Adds an image prompt to a model. Chain several for several images, adapters or regions; "
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
    ):
        region = None if mask is None else Region(as_mask(mask))
        settings = host.ApplySettings(
            host.weights_for(model, image_prompt.adapter, weight, weight_type, layer_weights),
            timing(start_at, end_at, parse_curve(weight_curve)),
            region,
        )
        steered = host.add_prompt(model, image_prompt, settings)
        return (host.ensure_lora(steered, image_prompt.adapter, lora_strength) if weight else steered,)
