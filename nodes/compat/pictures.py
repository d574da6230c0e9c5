"""Preprocessing and noise pictures: the helper nodes of the de-facto pack, both generations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...ipadapter_core.errors import SettingError
from .arithmetic.crop import POSITIONS
from .arithmetic.noise import KINDS, make_noise
from .arithmetic.prepare import for_clip_vision, for_insightface
from .arithmetic.resampling import FILTERS, filter_named
from .inputs import Compatible

_SHARPENING = ("FLOAT", {"default": 0.0, "min": 0, "max": 1, "step": 0.05})


class PrepareNode(Compatible):
    TITLE = "Prep Image For ClipVision"
    DESCRIPTION = (
        "Cuts a square from the picture and resizes it to 224 pixels. Image Prompt: Encode Image does so by itself: "
        "see its fit and position."
    )
    SEARCH_ALIASES = ["prep image for clip vision", "crop for clip vision"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("IMAGE",)
    FUNCTION = "prep_image"
    REQUIRED = "image interpolation crop_position sharpening"
    OWN = {
        "interpolation": (list(FILTERS),),
        "crop_position": (["top", "bottom", "left", "right", "center", "pad"],),
        "sharpening": _SHARPENING,
    }

    @classmethod
    def VALIDATE_INPUTS(cls, interpolation: Any = FILTERS[0]) -> bool | str:
        """Names of 2023 ('lanczos', 'area') are accepted; the menu's are checked here instead of by the host."""
        return _no_error(filter_named, interpolation)

    def prep_image(
        self,
        image: Tensor,
        interpolation: str = "LANCZOS",
        crop_position: str = "center",
        sharpening: float = 0.0,
    ) -> tuple[Tensor]:
        return (for_clip_vision(image, interpolation, crop_position, sharpening),)


def _no_error(check: Any, value: Any) -> bool | str:
    try:
        check(value) if isinstance(value, str) else None
    except SettingError as error:
        return str(error)
    return True


class PrepareFaceNode(Compatible):
    TITLE = "Prepare Image For InsightFace"
    DESCRIPTION = "Cuts a square from the picture and resizes it to 640 pixels. Image Prompt: Find Faces needs no such help."
    SEARCH_ALIASES = ["prep image for insightface"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("IMAGE",)
    FUNCTION = "prep_image"
    REQUIRED = "image crop_position sharpening pad_around"
    OWN = {
        "crop_position": ([position for position in POSITIONS if position != "pad"],),
        "sharpening": _SHARPENING,
        "pad_around": ("BOOLEAN", {"default": True}),
    }

    def prep_image(
        self, image: Tensor, crop_position: str, sharpening: float = 0.0, pad_around: bool = True
    ) -> tuple[Tensor]:
        return (for_insightface(image, crop_position, sharpening, pad_around),)


class NoiseNode(Compatible):
    TITLE = "IPAdapter Noise"
    DESCRIPTION = (
        "A picture of noise for the negative side, from a reference or from nothing. The same picture gives the same noise, "
        "and no other node's random numbers change."
    )
    SEARCH_ALIASES = ["negative noise", "noise injection"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("IMAGE",)
    FUNCTION = "make_noise"
    REQUIRED, OPTIONAL = "type strength blur", "image_optional"
    OWN = {
        "type": (list(KINDS),),
        "strength": ("FLOAT", {"default": 1.0, "min": 0, "max": 1, "step": 0.05}),
        "blur": ("INT", {"default": 0, "min": 0, "max": 32, "step": 1}),
        "image_optional": ("IMAGE",),
    }

    def make_noise(
        self, type: str, strength: float, blur: int, image_optional: Tensor | None = None
    ) -> tuple[Tensor]:
        return (make_noise(type, strength, blur, image_optional),)


CLASSES = {
    "PrepImageForClipVision": PrepareNode,
    "PrepImageForInsightFace": PrepareFaceNode,
    "IPAdapterNoise": NoiseNode,
}
