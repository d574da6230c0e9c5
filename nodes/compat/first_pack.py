"""The node of August to November 2023 that had the id 'IPAdapter' before the de-facto pack: loads, encodes and applies.

The id means another node today, so graphs are retyped to this one: in the page (web/js) and in queued prompts.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import host
from ...host import folders
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.features import Features
from ...ipadapter_core.masking import as_mask
from ...ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from ...ipadapter_core.spec import Feature
from .. import names
from .inputs import WEIGHT_TO_3, Compatible, inputs


class FirstPackNode(Compatible):
    """Its inputs, of all its versions. dtype was the adapter's precision, which the host chooses today."""

    TITLE = "Load IPAdapter"
    DESCRIPTION = "For graphs made with IPAdapter-ComfyUI of 2023. New graphs: Image Prompt."
    RETURN_TYPES = ("MODEL", "CLIP_VISION_OUTPUT")
    FUNCTION = "adapter"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs(
            "model weight model_name dtype",
            "image clip_vision mask clip_vision_output",
            weight=WEIGHT_TO_3,
            model_name=(folders.adapter_files(),),
            dtype=(["fp16", "fp32"],),
            mask=("MASK",),
            clip_vision_output=("CLIP_VISION_OUTPUT",),
        )

    @classmethod
    def VALIDATE_INPUTS(cls, model_name: Any = None) -> bool | str:
        return names.problem(names.adapter_path, model_name)

    def adapter(
        self,
        model: Any,
        weight: float,
        model_name: str,
        dtype: str = "fp16",
        image: Tensor | None = None,
        clip_vision: Any = None,
        mask: Tensor | None = None,
        clip_vision_output: Any = None,
    ) -> tuple[Any, Any]:
        """Several images are one for each picture. Raises ImagePromptError: no image, or what our own nodes raise."""
        path = names.adapter_path(model_name)
        adapter = host.load_adapter(path, folders.adapter_variant(path))
        host.check_model(model, adapter)
        with folders.suggest_encoder(adapter.spec):
            if image is not None and clip_vision is not None:
                arrange = Arrange.ONE_EACH if len(image) > 1 else Arrange.TOGETHER
                reference, encoding = host.Reference(image), host.Encoding(arrange)
                prompt = host.encode_prompt(adapter, clip_vision, reference, encoding=encoding)
                clip_vision_output = clip_vision.encode_image(image)
            else:
                prompt = _encoded(adapter, clip_vision_output, clip_vision)
        region = None if mask is None else as_mask(mask)
        return host.apply_prompt(model, prompt, weight, mask=region), clip_vision_output


def _encoded(adapter: host.HostAdapter, output: Any, clip_vision: Any) -> ImagePrompt:
    """The prompt from CLIPVisionEncode's output, as in the node's first versions. Some adapters need the encoder too."""
    if output is None:
        raise MismatchError(
            "no picture came. Connect image and clip_vision (or clip_vision_output of CLIPVisionEncode)."
        )
    spec = adapter.spec
    if spec.feature is Feature.NONE or (spec.feature is Feature.PENULTIMATE and clip_vision is None):
        raise MismatchError(
            f"{adapter.name} is a {spec.variant.value} adapter, which needs more than clip_vision_output. Connect image and "
            "clip_vision instead."
        )
    grid = spec.feature is Feature.PENULTIMATE
    seen = (output["penultimate_hidden_states"] if grid else output["image_embeds"]).float()
    if seen.ndim != (3 if grid else 2) or seen.shape[-1] != spec.feature_width:
        raise MismatchError(
            f"clip_vision_output of shape {tuple(seen.shape)} came, but {adapter.name} reads width {spec.feature_width} of "
            f"{spec.encoder}. Connect CLIPVisionEncode with that encoder."
        )
    tokens = adapter.project(Features(seen))
    none = host.no_image_features(clip_vision, spec, seen)
    nothing = adapter.project(Features(none)) if len(none) else tokens[:1, :0]
    return make_prompt(adapter, tokens, nothing, Arrange.ONE_EACH if len(seen) > 1 else Arrange.TOGETHER)


CLASSES = {"ImagePromptLegacyApply": FirstPackNode}
