"""What is measured of made pictures: their likeness to wanted scenes, by eyes that differ in what they see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..toy import reader, world
from ..toy.world import Scenes

# by name, of one set of pictures
Measures = dict[str, float]
# name -> what it is; the first is the paper's
MEANING = {
    "likeness": "CLIP-I: cosine of the toy world's image embeddings, 1 is the same",
    "pixels": "mean difference of all pixels, 0 to 1",
    "colours": "mean difference of the colours inside and outside of the drawn shape, 0 to 1",
    "overlap": "of the drawn shape and the wanted one: both over either, 1 is the same",
    "centre": "pixels from the drawn shape's middle to the wanted one's",
    "shape": "part of the pictures in which a classifier sees the wanted shape",
    "pattern": "the same of the ground's pattern",
}


@dataclass
class Judge:
    """embed: pictures (n, h, w, 3) -> image embeddings (n, d)."""

    embed: Callable[[Tensor], Tensor]
    reader: reader.Reader = field(default_factory=reader.load_reader)

    @torch.inference_mode()
    def measures(self, made: Tensor, wanted: Scenes) -> Measures:
        """made: one picture (n, 96, 96, 3) in 0..1 for each scene."""
        target = world.render(wanted).movedim(1, -1)
        ours, theirs = (self.embed(pictures) for pictures in (made, target))
        drawn, own = drawn_shapes(made, wanted), world.silhouettes(wanted)[:, 0] > 0.5
        shape, pattern = reader.read(self.reader, made)
        found = {
            "likeness": torch.nn.functional.cosine_similarity(ours, theirs).mean(),
            "pixels": (made - target).abs().mean(),
            "colours": (_colours(made, drawn) - _colours(target, own)).abs().mean(),
            "overlap": ((drawn & own).sum((1, 2)) / (drawn | own).sum((1, 2))).mean(),
            "centre": (_centres(drawn) - _centres(own)).norm(dim=1).mean(),
            "shape": (shape == wanted.shape).float().mean(),
            "pattern": (pattern == wanted.pattern).float().mean(),
        }
        return {name: float(value) for name, value in found.items()}


def drawn_shapes(made: Tensor, wanted: Scenes) -> Tensor:
    """Pixels (n, h, w) that are nearer to the wanted shape's colour than to its ground, bright or dark."""
    grounds = wanted.ground_rgb[:, None, :] * torch.tensor([1.0, world.DARKER]).view(1, 2, 1)
    colours = torch.cat((wanted.colour_rgb[:, None, :], grounds), dim=1)
    distance = (made[:, None] - colours[:, :, None, None]).norm(dim=-1)
    return distance.argmin(1) == 0


def _colours(pictures: Tensor, shapes: Tensor) -> Tensor:
    """Mean colours (n, 2, 3) inside and outside of the shapes; of a shape that is nowhere, the other's."""
    inside = torch.stack((shapes, ~shapes), dim=1)
    inside = torch.where(inside.any(dim=(2, 3), keepdim=True), inside, ~inside).float()
    sums = torch.einsum("nkhw,nhwc->nkc", inside, pictures)
    return sums / inside.sum((2, 3))[..., None]


def _centres(shapes: Tensor) -> Tensor:
    """(n, 2) pixels; a shape that is nowhere counts as in a corner."""
    axis = torch.arange(shapes.shape[-1]) + 0.5
    count = shapes.sum((1, 2)).clamp(min=1)
    return torch.stack([(shapes.sum(dim) * axis).sum(1) / count for dim in (1, 2)], dim=1)
