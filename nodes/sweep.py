"""Nodes that try several weights in one batch: a sweep, and a sheet of pictures with a label each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..ipadapter_core.errors import MismatchError, SettingError
from ..ipadapter_core.masking import Region, as_mask
from ..ipadapter_core.pictures.sheets import as_tensor, labelled_sheet
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.timing import parse_curve, timing
from ..ipadapter_core.values import numbers
from .entry import Node
from .inputs import (
    TOOLS,
    image_prompt_input,
    lora_strength_input,
    model_input,
    weight_type_input,
)

MORE_PROMPTS = range(2, 5)
MOST_PICTURES = 64
Row = tuple[int, str]  # number of the prompt, curve


class ImagePromptSweepNode(Node):
    TITLE = "Image Prompt: Sweep"
    DESCRIPTION = (
        "Several weights, curves or adapters as one batch of pictures from the same noise: for each prompt and curve a row, "
        "for each weight a column. Labelled Sheet puts them on one picture."
    )
    CATEGORY = TOOLS
    SEARCH_ALIASES = ["xy plot", "grid", "compare weights", "strength sweep", "weight sweep"]
    RETURN_TYPES = ("MODEL", "LATENT", "STRING", "INT")
    RETURN_NAMES = ("model", "latent", "labels", "columns")
    OUTPUT_TOOLTIPS = (
        "The model, in which each picture of the batch has a weight of its own.",
        "The batch, with the same noise for all of its pictures; for the sampler.",
        "One line for each picture, for Labelled Sheet.",
        "How many pictures a row has.",
    )
    FUNCTION = "sweep"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        latent = "One latent of the size to sample: an Empty Latent Image with batch_size 1, or an encoded picture."
        weights = "The weights to try, as '0, 0.5, 1'."
        curves = "Weight curves to try, one a line, such as 0:0, 0.5:1; 'flat' is the same weight all the time. Empty: flat."
        mask = "Region of the picture that the image steers, in all of them."
        return {
            "required": {
                "model": model_input(),
                "image_prompt": image_prompt_input(),
                "latent": ("LATENT", {"tooltip": latent}),
                "weights": ("STRING", {"default": "0, 0.25, 0.5, 0.75, 1", "tooltip": weights}),
                "weight_type": weight_type_input(),
            },
            "optional": {
                "curves": ("STRING", {"default": "", "multiline": True, "tooltip": curves}),
                **{f"image_prompt_{n}": ("IMAGE_PROMPT", {"tooltip": _OTHER}) for n in MORE_PROMPTS},
                "mask": ("MASK", {"tooltip": mask}),
                "lora_strength": lora_strength_input(),
            },
        }

    def sweep(
        self,
        model: Any,
        image_prompt: ImagePrompt,
        latent: dict[str, Any],
        weights: str,
        weight_type: str = "linear",
        curves: str = "",
        mask: Tensor | None = None,
        lora_strength: float = 1.0,
        **more: ImagePrompt | None,
    ):
        given = (more.get(f"image_prompt_{n}") for n in MORE_PROMPTS)
        prompts = [image_prompt, *(each for each in given if each is not None)]
        columns = _columns(weights)
        rows = [*product(range(len(prompts)), _curves(curves))]
        _require_room(len(rows) * len(columns))
        _refuse_two_loras(prompts)
        region = None if mask is None else Region(as_mask(mask))
        for number, (of, curve) in enumerate(rows):
            per_picture = torch.zeros(len(rows), len(columns))
            per_picture[number] = torch.tensor(columns)
            settings = host.ApplySettings(
                host.weights_for(model, prompts[of].adapter, 1.0, weight_type),
                timing(0.0, 1.0, parse_curve(curve)),
                region,
                per_picture=per_picture.flatten(),
            )
            model = host.add_prompt(model, prompts[of], settings)
        model = host.ensure_lora(model, prompts[0].adapter, lora_strength)
        labels = [_label(row, rows, prompts, weight) for row in rows for weight in columns]
        return model, _same_noise(latent, len(labels)), "\n".join(labels), len(columns)


class ImagePromptSheetNode(Node):
    TITLE = "Image Prompt: Labelled Sheet"
    DESCRIPTION = "Puts the pictures of a batch on one, row by row, each above its label."
    CATEGORY = TOOLS
    SEARCH_ALIASES = ["contact sheet", "image grid", "xy plot", "labelled grid", "compare"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("sheet",)
    OUTPUT_TOOLTIPS = ("The sheet.",)
    OUTPUT_NODE = True
    FUNCTION = "lay"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        labels = "One line for each picture, from Sweep or typed."
        columns = "Pictures in a row. 0: as many as make the sheet about square."
        side = "The longer side of each picture on the sheet, in pixels."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures."}),
                "labels": ("STRING", {"default": "", "multiline": True, "tooltip": labels}),
                "columns": ("INT", {"default": 0, "min": 0, "max": MOST_PICTURES, "tooltip": columns}),
                "side": ("INT", {"default": 512, "min": 64, "max": 2048, "step": 32, "tooltip": side}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def lay(
        self, images: Tensor, labels: str = "", columns: int = 0, side: int = 512, node_id: str | None = None
    ):
        per_row = columns or round(len(images) ** 0.5 + 0.49)
        sheet = as_tensor(labelled_sheet(images, labels.split("\n"), per_row, side))
        return (sheet,) if node_id is None else {"ui": host.preview(sheet), "result": (sheet,)}


_OTHER = "A further prompt to compare: of another adapter, or another image."
_FLAT = "flat"


def _columns(weights: str) -> list[float]:
    found = [*numbers(weights, "weights")]
    if not found:
        raise SettingError("weights is empty; give the weights to try, as '0, 0.5, 1'.")
    return found


def _curves(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ["" if line.lower() == _FLAT else line for line in lines] or [""]


def _require_room(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise SettingError(
            f"{pictures} pictures are more than the {MOST_PICTURES} of one sweep. Give fewer weights, curves or prompts."
        )


def _refuse_two_loras(prompts: Sequence[ImagePrompt]) -> None:
    """A LoRA is on the model for all pictures of the batch."""
    names = dict.fromkeys(prompt.adapter.name for prompt in prompts)
    with_lora = [prompt.adapter.name for prompt in prompts if getattr(prompt.adapter, "lora", None)]
    if with_lora and len(names) > 1:
        raise SettingError(
            f"{with_lora[0]} brings a LoRA, which would be on the model for the pictures of {' and '.join(names)} alike. "
            "Sweep each adapter alone."
        )


def _label(row: Row, rows: Sequence[Row], prompts: Sequence[ImagePrompt], weight: float) -> str:
    of, curve = row
    parts = [f"weight {weight:g}"]
    if any(each for _, each in rows):
        parts.insert(0, curve or _FLAT)
    if len(prompts) > 1:
        stems = [PurePosixPath(prompt.adapter.name).stem for prompt in prompts]
        parts.insert(0, stems[of] if stems.count(stems[of]) == 1 else f"prompt {of + 1}")
    return ", ".join(parts)


def _same_noise(latent: dict[str, Any], pictures: int) -> dict[str, Any]:
    """The latent repeated, with one number for all pictures: the host draws noise by it."""
    samples = latent["samples"]
    if samples.shape[0] != 1:
        raise MismatchError(
            f"the latent has {samples.shape[0]} pictures; a sweep makes its batch of one. Set its batch_size to 1."
        )
    number = (latent.get("batch_index") or [0])[0]
    repeated = samples.repeat(pictures, *[1] * (samples.ndim - 1))
    return {**latent, "samples": repeated, "batch_index": [number] * pictures}
