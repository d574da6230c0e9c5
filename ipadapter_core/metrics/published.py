"""Table 1 of the paper (arXiv 2308.06721): COCO2017 val, 5,000 prompts, 4 pictures each, CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ..checkpoint import Shapes


@dataclass(frozen=True)
class Published:
    """kind: how it was trained. millions: trainable parameters. clip_score: what its table calls CLIP-T. clip_i: a
    cosine."""

    name: str
    kind: str
    millions: int
    clip_score: float
    clip_i: float


TABLE_1: tuple[Published, ...] = (
    Published("Open unCLIP", "from scratch", 893, 0.608, 0.858),
    Published("Kandinsky-2-1", "from scratch", 1229, 0.599, 0.855),
    Published("Versatile Diffusion", "from scratch", 860, 0.587, 0.830),
    Published("SD Image Variations", "fine-tuned", 860, 0.548, 0.760),
    Published("SD unCLIP", "fine-tuned", 870, 0.584, 0.810),
    Published("Uni-ControlNet (Global Control)", "adapter", 47, 0.506, 0.736),
    Published("T2I-Adapter (Style)", "adapter", 39, 0.485, 0.648),
    Published("ControlNet Shuffle", "adapter", 361, 0.421, 0.616),
    Published("IP-Adapter", "adapter", 22, 0.588, 0.828),
)


def parameter_count(shapes: Mapping[str, tuple[int, ...]] | Shapes) -> int:
    """Number of values in tensors of these shapes; in an adapter file, its trained parameters."""
    return sum(prod(shape) for shape in shapes.values())
