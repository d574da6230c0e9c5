"""The same studio with the toy transformer, which has Flux.1's layout, instead of the UNet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from ..toy import flux_models
from .figures import HELD_OUT
from .gallery import WEIGHTS
from .sheet import Sheet, references
from .studio import Part, Scene, Studio, empty, host_nodes

CELL, GAP, LEFT, TOP, LABEL = 96, 6, 120, 64, 17
# seeds of world.py, no training saw them
SHOWN = tuple(range(HELD_OUT, HELD_OUT + 8))


@dataclass
class TransformerStudio(Studio):
    """As Studio; there is no ControlNet for it."""

    model: Any = field(default_factory=flux_models.load_model)
    control_net: None = None
    adapter: ClassVar[str] = flux_models.ADAPTER_PATH.name

    @torch.inference_mode()
    def sample(self, model: Any, scene: Scene, latent: dict[str, Any] | None = None) -> Tensor:
        latents = (latent or empty(scene))["samples"]
        samples = flux_models.sample(model, scene.text, latents, scene.seed)
        return host_nodes.VAEDecode().decode(self.vae, {"samples": samples})[0]


def contact_sheet(studio: TransformerStudio) -> Image.Image:
    """The references in a row, and below them results by weight, of the same noise."""
    pictures = references(SHOWN)
    width = LEFT + len(SHOWN) * (CELL + GAP) + GAP
    sheet = Sheet(width, TOP + (len(WEIGHTS) + 1) * (CELL + GAP) + GAP, CELL, GAP)
    sheet.write(GAP, 16, "A transformer of Flux.1's layout, 1.6 million weights, and an XLabs adapter", 22)
    rows = {"reference": pictures}
    for weight in WEIGHTS:
        scene = Scene((Part(pictures, weight),), pictures=len(pictures), seed=3)
        rows[f"weight {weight:g}"] = studio.make(scene)
    for number, (label, made) in enumerate(rows.items()):
        top = TOP + number * (CELL + GAP)
        sheet.write(LEFT - GAP - 6, top + CELL / 2, label, LABEL, True, "rm")
        sheet.row(LEFT, top, [*made.split(1)], tuple(range(len(made))) if not number else ())
    return sheet.page
