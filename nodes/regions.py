"""The node of regions: each part of the picture is steered by an image prompt of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..host import folders
from ..ipadapter_core import values
from ..ipadapter_core.errors import MismatchError, SettingError
from ..ipadapter_core.masking import Region
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.regions import MOST_REGIONS, DrawnRegion, Overlap, parse_regions, region_masks
from ..ipadapter_core.spec import Identity
from ..ipadapter_core.timing import parse_curve, timing
from .entry import KINDS, Node
from .inputs import (
    CATEGORY,
    Either,
    choice_input,
    fraction_input,
    lora_strength_input,
    model_input,
    weight_curve_input,
    weight_input,
    weight_type_input,
)

REGIONS = range(1, MOST_REGIONS + 1)
PROMPT_OR_PICTURE = Either("IMAGE_PROMPT,IMAGE")
Source = ImagePrompt | Tensor


def _source(value: Any, name: str) -> Source:
    kind = "IMAGE_PROMPT" if isinstance(value, ImagePrompt) else "IMAGE"
    return KINDS[kind](value, name)


class ImagePromptRegionsNode(Node):
    KINDS = {PROMPT_OR_PICTURE: _source}
    TITLE = "Image Prompt: Regions"
    DESCRIPTION = (
        "Each region of the picture gets an image prompt of its own. Draw boxes and strokes on the node; image_prompt_1 "
        "steers region 1, and so on. mask_1 … are the regions for texts of their own: Conditioning (Set Mask)."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "regional image prompt",
        "regional prompt",
        "attention mask",
        "paint regions",
        "area composition",
        "IPAdapter Regional Conditioning",
    ]
    RETURN_TYPES = ("MODEL", "MASK", "MASK", *("MASK" for _ in REGIONS))
    RETURN_NAMES = ("model", "masks", "rest", *(f"mask_{n}" for n in REGIONS))
    OUTPUT_TOOLTIPS = (
        "The model, steered in each region; connect it to the sampler or a further Apply.",
        "All regions, one mask each.",
        "What no region covers.",
        *(f"Region {n}; all black if there is none." for n in REGIONS),
    )
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = "{} of the picture to make, in pixels. The masks have this size; the drawing has this shape."
        sides = {"default": 512, "min": 16, "max": 4096, "step": 8}
        regions = (
            "One region after the other, with ';' between them: 'box left,top,width,height', 'stroke brush x,y x,y …', "
            "'erase brush x,y …', then 'weight 0.8' and 'soft 0.05' (width of the edge). In fractions of the picture."
        )
        overlap = "What several regions cover: the later one has it, each has its share, or each acts there in full."
        adapter = (
            "Needed where a picture, not an image prompt, is connected to a region: it is encoded with it."
        )
        encoder = "The encoder of this adapter, needed as the adapter is."
        prompt = "What steers region {}: an image prompt, or a picture, then connect ipadapter and clip_vision too."
        return {
            "required": {
                "model": model_input(),
                "width": ("INT", {**sides, "tooltip": side.format("Width")}),
                "height": ("INT", {**sides, "tooltip": side.format("Height")}),
                "regions": ("STRING", {"default": "box 0,0,0.5,1; box 0.5,0,0.5,1", "tooltip": regions}),
                "overlap": choice_input(Overlap, Overlap.LATER, overlap),
                "weight": weight_input(
                    "How strongly all regions are steered; times each region's own weight."
                ),
            },
            "optional": {
                "start_at": fraction_input(0.0, "Fraction of sampling at which the images begin to steer."),
                "end_at": fraction_input(1.0, "Fraction of sampling at which they stop."),
                "weight_type": weight_type_input(),
                "weight_curve": weight_curve_input(),
                "lora_strength": lora_strength_input(),
                "ipadapter": ("IPADAPTER", {"tooltip": adapter}),
                "clip_vision": ("CLIP_VISION", {"tooltip": encoder}),
                **{f"image_prompt_{n}": (PROMPT_OR_PICTURE, {"tooltip": prompt.format(n)}) for n in REGIONS},
            },
        }

    def apply(
        self,
        model: Any,
        width: int,
        height: int,
        regions: str,
        overlap: str,
        weight: float,
        start_at: float = 0.0,
        end_at: float = 1.0,
        weight_type: str = "linear",
        weight_curve: str = "",
        lora_strength: float = 1.0,
        ipadapter: Any = None,
        clip_vision: Any = None,
        **sources: Source,
    ):
        drawn = parse_regions(regions)
        masks = region_masks(drawn, height, width, Overlap(overlap))
        when = timing(start_at, end_at, parse_curve(weight_curve))
        given = {n: sources.get(f"image_prompt_{n}") for n in REGIONS}
        _check_regions(given, drawn, masks)
        steered = model
        for n, source in given.items():
            if source is not None:
                prompt = _prompt(source, n, ipadapter, clip_vision)
                strength = weight * drawn[n - 1].weight
                weights = host.weights_for(model, prompt.adapter, strength, weight_type)
                settings = host.ApplySettings(weights, when, Region(masks[n - 1 : n]))
                steered = host.add_prompt(steered, prompt, settings)
                steered = host.ensure_lora(steered, prompt.adapter, lora_strength) if strength else steered
        return (steered, *_outputs(masks, height, width))


def _check_regions(given: dict[int, Source | None], drawn: Sequence[DrawnRegion], masks: Tensor) -> None:
    """Raise SettingError where an image prompt is connected to a region that is nowhere."""
    for n in (n for n, source in given.items() if source is not None):
        if n > len(drawn) or not drawn[n - 1].shapes:
            raise SettingError(
                f"image_prompt_{n} is connected, but region {n} is not drawn: there are {len(drawn)} regions. "
                f"Draw a box or a stroke for it, or disconnect image_prompt_{n}."
            )
        if not bool(masks[n - 1].any()):
            raise SettingError(
                f"region {n} covers nothing: it lies outside of the picture, was erased, or later regions lie on all of "
                "it. Move it, or choose another overlap."
            )


def _prompt(source: Source, n: int, ipadapter: Any, clip_vision: Any) -> ImagePrompt:
    if isinstance(source, ImagePrompt):
        return source
    if ipadapter is None:
        raise MismatchError(
            f"image_prompt_{n} is {values.described(source)}. Connect ipadapter and clip_vision, with which it is encoded, "
            "or an image prompt."
        )
    adapter = host.adapter_of(ipadapter)
    if adapter.spec.identity is not Identity.NONE:
        raise MismatchError(
            f"image_prompt_{n} is {values.described(source)}, and {adapter.name} is an adapter for faces. "
            "Connect the image prompt of Image Prompt: Encode Face."
        )
    with folders.suggest_encoder(adapter.spec):
        return host.encode_prompt(adapter, clip_vision, host.Reference(source))


def _outputs(masks: Tensor, height: int, width: int) -> list[Tensor]:
    """All masks (one black one where there is no region), what is left, and one mask for each output."""
    black = torch.zeros(1, height, width)
    each = [masks[n - 1 : n] if n <= len(masks) else black for n in REGIONS]
    rest = (1 - masks.sum(0, keepdim=True)).clamp(0, 1)
    return [masks if len(masks) else black, rest, *each]
