"""Inputs of the de-facto nodes, declared once: graphs rely on their names, order, defaults and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...ipadapter_core import values
from ...ipadapter_core.scaling import Scaling
from ..entry import Check, Node
from ..inputs import Input
from .arithmetic.two_image_weights import ALL_TYPES

CATEGORY = "image prompt/older"
COMBINE = ["concat", "add", "subtract", "average", "norm average"]
# In the order of its menu: some saved graphs hold a number for a word.
TYPES = [name for name in ALL_TYPES if name not in ("weak output", "weak middle")]
TYPES[6:6] = ["weak output", "weak middle"]
# Names that older versions of the pack wrote into files.
OLD_TYPES = {
    "style transfer (SDXL)": "style transfer",
    "style transfer (SDXL only)": "style transfer",
    "composition (SDXL)": "composition",
    "style transfer and composition": "style and composition",
    "original": "linear",
}


def _float(default: float, low: float, high: float, step: float = 0.05) -> Input:
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step})


WEIGHT, WEIGHT_TO_3 = _float(1.0, -1, 5), _float(1.0, -1, 3)
DECLARED: dict[str, Input] = {
    "model": ("MODEL",),
    "ipadapter": ("IPADAPTER",),
    "image": ("IMAGE",),
    "weight": WEIGHT,
    "weight_faceidv2": _float(1.0, -1, 5.0),
    "weight_kolors": _float(1.0, -1, 5.0),
    "weight_type": (TYPES,),
    "combine_embeds": (COMBINE,),
    "start_at": _float(0.0, 0.0, 1.0, 0.001),
    "end_at": _float(1.0, 0.0, 1.0, 0.001),
    "embeds_scaling": ([scaling.value for scaling in Scaling],),
    "encode_batch_size": ("INT", {"default": 0, "min": 0, "max": 4096}),
    "sharpening": _float(0.0, 0.0, 1.0),
    "layer_weights": ("STRING", {"default": "", "multiline": True}),
    "enhance_tiles": ("INT", {"default": 2, "min": 1, "max": 16}),
    "enhance_ratio": _float(1.0, 0.0, 1.0),
    "image_style": ("IMAGE",),
    "image_composition": ("IMAGE",),
    "weight_style": WEIGHT,
    "weight_composition": WEIGHT,
    "expand_style": ("BOOLEAN", {"default": False}),
    "style_boost": _float(1.0, -5, 5),
    "composition_boost": _float(0.0, -5, 5),
    "pos_embed": ("EMBEDS",),
    "neg_embed": ("EMBEDS",),
    "ipadapter_params": ("IPADAPTER_PARAMS",),
    "image_negative": ("IMAGE",),
    "attn_mask": ("MASK",),
    "clip_vision": ("CLIP_VISION",),
    "insightface": ("INSIGHTFACE",),
}


def inputs(required: str, optional: str, **other: Input) -> dict[str, dict[str, Input]]:
    """INPUT_TYPES of names, in this order; `other` are declarations that differ from the usual ones."""
    declared: dict[str, Any] = {**DECLARED, **other}
    return {
        "required": {name: declared[name] for name in required.split()},
        "optional": {name: declared[name] for name in optional.split()},
    }


def weight_type_of(name: str) -> str | None:
    """Today's name of a weight type; None if no version had it."""
    name = OLD_TYPES.get(name, name)
    return name if name in (*ALL_TYPES, "strong style and composition") else None


# Below 0 counts as the start, above 1 as the end, as the host reads it.
ANY_FRACTION: dict[str, Check] = {"start_at": values.number, "end_at": values.number}


class Compatible(Node):
    """What all compatibility nodes have in common.

    REQUIRED, OPTIONAL: names of inputs in order. OWN: inputs declared otherwise than in DECLARED.
    """

    REQUIRED = OPTIONAL = ""
    FREE = "weight_type interpolation ipadapter_file preset embeds model_name provider"
    KINDS: ClassVar[Mapping[str, Check]] = ANY_FRACTION
    OWN: ClassVar[Mapping[str, Input]] = {}
    CATEGORY = CATEGORY
    DEPRECATED = True
    DESCRIPTION = (
        "For graphs made with the older IP-Adapter pack. New graphs are simpler with the Image Prompt nodes."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs(cls.REQUIRED, cls.OPTIONAL, **cls.OWN)

    @classmethod
    def declared(cls) -> dict[str, Input]:
        """Also those that only other packs give, in Python."""
        return {**DECLARED, **cls.OWN, **super().declared()}
