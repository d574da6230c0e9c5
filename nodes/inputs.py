"""Inputs that several nodes declare, and their tooltips, written once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from ..ipadapter_core.weighting import WEIGHT_TYPES

CATEGORY = "image prompt"
NONE_FOUND = "none found"
FACES, TRAINING, TOOLS = (f"{CATEGORY}/{folder}" for folder in ("faces", "training", "tools"))
Input = tuple[Any, ...]


class Either(str):
    """A type of several, with commas between. Hosts before December 2024 compare types by != only."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return str(other) not in {*self.split(","), str(self)}


def model_input() -> Input:
    return (
        "MODEL",
        {
            "tooltip": "The SD1.5, SDXL, Flux.1 or SD3.5 Large model to steer. It stays as it is; the output is a patched "
            "copy."
        },
    )


def clip_vision_input() -> Input:
    tip = "The encoder this adapter was trained with, from CLIPVisionLoader: ViT-H for most, ViT-bigG for ip-adapter_sdxl."
    return ("CLIP_VISION", {"tooltip": tip})


def image_input() -> Input:
    return ("IMAGE", {"tooltip": "The reference picture, or a batch of them."})


def ipadapter_input() -> Input:
    return ("IPADAPTER", {"tooltip": "The adapter, from Image Prompt: Load Adapter."})


def image_prompt_input(optional: bool = False) -> Input:
    tip = (
        "A further image prompt of the same adapter."
        if optional
        else "An encoded, combined or loaded image prompt."
    )
    return ("IMAGE_PROMPT", {"tooltip": tip})


def menu(names: list[str]) -> list[str]:
    """Of files: never empty, so that a graph can be queued and the node says what is missing, and where to get it."""
    return names or [NONE_FOUND]


def adapter_file_input(files: list[str]) -> Input:
    tip = "Adapter file in models/ipadapter. What kind of adapter it is, is read from its contents, whatever its name."
    return (menu(files), {"tooltip": tip})


def weight_input(
    tooltip: str = "How strongly the image steers: 0 off, 1 as trained. With a text prompt, try 0.5-0.8.",
    default: float = 1.0,
) -> Input:
    return ("FLOAT", {"default": default, "min": -1.0, "max": 5.0, "step": 0.05, "tooltip": tooltip})


def fraction_input(default: float, tooltip: str) -> Input:
    return ("FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.001, "tooltip": tooltip})


def weight_curve_input() -> Input:
    tip = (
        "How the weight changes over sampling: pairs of a fraction of sampling and a factor on the weight, such as "
        "0:0.2, 0.3:1, 0.8:0.4. Linear between them; empty: the same weight all the time."
    )
    return ("STRING", {"default": "", "tooltip": tip})


def weight_type_input() -> Input:
    tip = (
        "Which attention blocks the weight goes to: 'linear' all alike, 'style transfer' the look only, "
        "'composition' the layout only, the others curves over the depth of the model."
    )
    return (list(WEIGHT_TYPES), {"default": "linear", "tooltip": tip})


def lora_strength_input() -> Input:
    tip = (
        "FaceID adapters only: strength of the LoRA that belongs to the adapter, which is put on the model unless it is "
        "there already. 0 turns it off."
    )
    return (
        "FLOAT",
        {"default": 1.0, "min": -2.0, "max": 2.0, "step": 0.05, "tooltip": tip, "advanced": True},
    )


def encoder_size_input() -> Input:
    tip = (
        "Side in pixels at which the encoder looks, 0 for its own (224). For adapters trained at another, such as 448: "
        "the encoder's position embedding is interpolated."
    )
    return ("INT", {"default": 0, "min": 0, "max": 1024, "step": 14, "tooltip": tip, "advanced": True})


def choice_input(choices: type[Enum], default: Enum, tooltip: str) -> Input:
    return ([choice.value for choice in choices], {"default": default.value, "tooltip": tooltip})


def lines_of(texts: Sequence[str]) -> list[str]:
    """The texts of a node with list inputs: of one text its lines, none if it is empty; several are one each."""
    return texts[0].strip().splitlines() if len(texts) == 1 else list(texts)
