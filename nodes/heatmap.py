"""Nodes that show where image prompts act: one watches the model while it samples, one draws what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..ipadapter_core.errors import MismatchError, SettingError
from ..ipadapter_core.pictures.heat import over, resized
from ..ipadapter_core.pictures.sheets import as_tensor, labelled_sheet
from .entry import Node
from .inputs import TOOLS, fraction_input, model_input

_ASPECT = 1.15  # a picture of another aspect than this is none of what was sampled
SAME, OWN = "same for all prompts", "each prompt's own"


class ImagePromptWatchNode(Node):
    TITLE = "Image Prompt: Watch"
    DESCRIPTION = (
        "Records where image prompts act while the model samples, for Image Prompt: Heat Map. Connect the model from here "
        "to the sampler. Pictures stay the same."
    )
    CATEGORY = TOOLS
    SEARCH_ALIASES = ["attention map", "heat map", "DAAM", "attention heatmap", "where does the image act"]
    RETURN_TYPES = ("MODEL", "IMAGE_PROMPT_WATCH")
    RETURN_NAMES = ("model", "watch")
    OUTPUT_TOOLTIPS = ("The model, for the sampler.", "What is seen while it samples, for Heat Map.")
    FUNCTION = "watch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "How many attentions of the model are watched, spread evenly over it. 0: all of them."
        return {
            "required": {
                "model": model_input(),
                "sites": ("INT", {"default": 8, "min": 0, "max": 128, "tooltip": tip}),
            }
        }

    def watch(self, model: Any, sites: int = 8):
        return host.watched(model, sites)


class ImagePromptHeatMapNode(Node):
    TITLE = "Image Prompt: Heat Map"
    DESCRIPTION = (
        "Shows where each image prompt acted: at each position, the norm of what it added beside that of what the text "
        "gave, as a mean over steps and watched attentions."
    )
    CATEGORY = TOOLS
    SEARCH_ALIASES = ["attention map", "heat map", "DAAM", "attention heatmap", "where does the image act"]
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("heat_maps", "masks", "report")
    OUTPUT_TOOLTIPS = (
        "The picture in grey with the map over it: for each image prompt in turn, one for each picture.",
        "The same maps in 0..1.",
        "How strong each prompt was, in the mean and at most.",
    )
    OUTPUT_NODE = True
    # checked here, so that a watch that saw nothing says so
    KINDS = {"watch": lambda value, name: _recordings(value, name)}
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        samples = "The sampler's LATENT. Needed where several samplers use the watched model: says which run is meant."
        scale = "From nothing to the most of all prompts, so that they compare; or each from its own least to its own most."
        watch = "From Image Prompt: Watch, whose model the sampler of this picture used."
        return {
            "required": {
                "watch": ("IMAGE_PROMPT_WATCH", {"tooltip": watch}),
                "image": ("IMAGE", {"tooltip": "The pictures that the sampler made, decoded."}),
                "opacity": fraction_input(0.7, "How much the colours cover the picture."),
                "scale": ([SAME, OWN], {"default": SAME, "tooltip": scale}),
            },
            "optional": {"samples": ("LATENT", {"tooltip": samples})},
            "hidden": {"prompt": "PROMPT", "node_id": "UNIQUE_ID"},
        }

    def draw(
        self,
        watch: Mapping[str, Any],
        image: Tensor,
        opacity: float = 0.7,
        scale: str = SAME,
        samples: Mapping[str, Any] | None = None,
        prompt: Mapping[str, Any] | None = None,
        node_id: str | None = None,
    ):
        run = _run_of(watch, prompt or {}, None if samples is None else samples["samples"])
        _require_fit(run, image)
        heat = run.heat()
        maps = [resized(each, *image.shape[1:3]) for _, each in heat]
        masks = _scaled(maps, scale == SAME)
        pictures = image.cpu().float().repeat(len(heat), 1, 1, 1)
        drawn = over(pictures, masks, opacity)
        lines = [_line(n, applied.name, each) for n, (applied, each) in enumerate(heat, 1)]
        result = (drawn, masks, "\n".join(lines))
        if node_id is None:
            return result
        host.show_status(node_id, "\n".join(lines))
        names = [f"{n} {PurePosixPath(applied.name).stem}" for n, (applied, _) in enumerate(heat, 1)]
        labels = [name for name in names for _ in range(len(image))]
        return {"ui": host.preview(as_tensor(labelled_sheet(drawn, labels, len(image)))), "result": result}


def _recordings(value: Any, name: str) -> Mapping[str, Any]:
    runs = getattr(value, "runs", None)
    if not isinstance(runs, Mapping):
        raise MismatchError(f"{name} is no watch. Connect Image Prompt: Watch.")
    seen = {sampler: run for sampler, run in runs.items() if run.calls}
    if not seen:
        raise MismatchError(
            "nothing was watched: no sampler used the model of Image Prompt: Watch with an image prompt since that node "
            "ran. Connect its model to the sampler, the image prompts in front of it or behind it, and sample anew, for "
            "example with another seed."
        )
    return seen


def _run_of(runs: Mapping[str, Any], prompt: Mapping[str, Any], samples: Tensor | None) -> Any:
    """The recording that is meant: of the sampler that gave these samples, else of the only one that the graph has."""
    if samples is not None and (given := [run for run in runs.values() if run.gave(samples)]):
        return given[-1]
    inside = [run for sampler, run in runs.items() if sampler in prompt] or [[*runs.values()][-1]]
    if len(inside) > 1:
        raise SettingError(
            f"{len(inside)} samplers used the watched model, and nothing says which of them made this picture. Connect "
            "`samples` with the LATENT of the one that did, or give each sampler an Image Prompt: Watch of its own."
        )
    return inside[0]


def _require_fit(run: Any, image: Tensor) -> None:
    height, width = image.shape[1:3]
    aspect = (width / height) / (run.full[1] / run.full[0])
    if len(image) != run.pictures or not 1 / _ASPECT < aspect < _ASPECT:
        raise MismatchError(
            f"{run.pictures} pictures of {run.full[1]} x {run.full[0]} latents were watched, and the image is {len(image)} "
            f"of {width} x {height} pixels. Connect the decoded pictures of that sampler."
        )


def _scaled(maps: Sequence[Tensor], together: bool) -> Tensor:
    """All maps in 0..1. together: by what is most in all of them; else each from its least to its most."""
    most = max(float(each.max()) for each in maps)
    bounds = [(0.0, most) if together else (float(each.min()), float(each.max())) for each in maps]
    return torch.cat(
        [(each - low) / max(high - low, 1e-12) for each, (low, high) in zip(maps, bounds, strict=True)]
    )


def _line(number: int, name: str, maps: Tensor) -> str:
    return f"{number} {name}: mean {float(maps.mean()):.3f}, most {float(maps.max()):.3f}"
