"""The paper's claims, as they are tried in the toy world.

Each claim has a measurement for every seed and a margin that must be above 0 in all of them. Those that do not hold are
reported too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..toy import models as toy
from ..toy import world
from .lab import HELD_OUT, REFERENCES, SLOWER, Lab

host_nodes: Any = importlib.import_module("nodes")  # the host's

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
Numbers = dict[str, float]


@dataclass(frozen=True)
class Claim:
    """where: in the paper. measure: (lab, seed) -> named numbers. margin: of them, above 0 where the claim holds.

    means: what the margin is. better: the numbers that are to be the highest. apart: those that are shares of something
    else, and not drawn beside the others. axis: what is drawn.
    """

    name: str
    where: str
    measure: Callable[..., Numbers]
    margin: Callable[[Numbers], float]
    means: str
    better: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    axis: str = "likeness to the reference"


def decoupled(lab: Lab, seed: int) -> Numbers:
    return {
        "decoupled": lab.similarity(lab.prompted(lab.adapter("decoupled", seed), seed)),
        "concatenated": lab.similarity(lab.prompted_by_concatenation(lab.concatenated(seed), seed)),
    }


def sweep(lab: Lab, seed: int) -> Numbers:
    adapter = lab.adapter("decoupled", seed)
    return {f"weight {w:g}": lab.similarity(lab.prompted(adapter, seed, w)) for w in WEIGHTS}


def text_and_image(lab: Lab, seed: int) -> Numbers:
    """The word names a shape, the picture gives the rest. Wanted: that shape in the references' colours."""
    scenes = world.make_scenes(REFERENCES, HELD_OUT)
    star = scenes.shape.clone().fill_(world.SHAPES.index("star"))
    wanted = world.render(type(scenes)(**{**vars(scenes), "shape": star})).movedim(1, -1)
    adapter = lab.adapter("decoupled", seed)
    made = {
        "text and image": lab.prompted(adapter, seed, 0.5, "star"),
        "text alone": lab.prompted(adapter, seed, 0.0, "star"),
        "image alone": lab.prompted(adapter, seed, 0.5, ""),
    }
    return {name: lab.similarity(pictures, wanted) for name, pictures in made.items()}


def custom_model(lab: Lab, seed: int) -> Numbers:
    adapter, model = lab.adapter("decoupled", seed), lab.custom(seed)
    return {
        "own base": lab.similarity(lab.prompted(adapter, seed)),
        "fine-tuned base": lab.similarity(lab.prompted(adapter, seed, model=model)),
        "fine-tuned base, no image": lab.similarity(lab.prompted(adapter, seed, 0.0, model=model)),
    }


def control(lab: Lab, seed: int) -> Numbers:
    """Overlap of the drawn shape with the ControlNet's silhouette, with and without it."""
    hints = world.silhouettes(world.make_scenes(REFERENCES, 500 + seed)).movedim(1, -1)
    net, adapter = toy.load_controlnet(), lab.adapter("decoupled", seed)

    def hint(positive, negative):
        return host_nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, net, hints, 1.0, 0.0, 1.0
        )[:2]

    free, kept = lab.prompted(adapter, seed), lab.prompted(adapter, seed, hint=hint)
    wanted = hints[..., 0] > 0.5
    return {
        "overlap, with ControlNet": _overlap(kept, wanted),
        "overlap, without": _overlap(free, wanted),
        "likeness, with image": lab.similarity(kept),
        "likeness, without": lab.similarity(lab.prompted(adapter, seed, 0.0, hint=hint)),
    }


def _overlap(pictures: Tensor, wanted: Tensor) -> float:
    border = torch.cat([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], dim=1)
    distance = (pictures - border.median(1).values[:, None, None]).norm(dim=-1)
    drawn = distance > distance.flatten(1).quantile(0.97, dim=1)[:, None, None] / 2
    return ((drawn & wanted).sum((1, 2)) / (drawn | wanted).sum((1, 2))).mean().item()


def dropping(lab: Lab, seed: int) -> Numbers:
    """Guidance (CFG) leads away from the prediction without an image, which is trained on dropped images alone."""
    made = {
        "dropped": lab.adapter("decoupled", seed),
        "never dropped": lab.adapter("never dropped", seed, drop_text=0.0, drop_image=0.0, drop_both=0.0),
    }
    return {
        f"{name}, CFG {cfg:g}": lab.similarity(lab.prompted(adapter, seed, cfg=cfg))
        for name, adapter in made.items()
        for cfg in (1.0, toy.CFG)
    }


def _gained_by_guidance(numbers: Numbers) -> float:
    without, with_, never_without, never_with = numbers.values()
    return min(with_ - without, (with_ - without) - (never_with - never_without))


def tokens(lab: Lab, seed: int) -> Numbers:
    made = {"4 tokens": lab.adapter("decoupled", seed)}
    made |= {f"{n} token{'s' * (n > 1)}": lab.adapter(f"{n} tokens", seed, tokens=n) for n in (1, 16)}
    made["resampler, 16 tokens"] = lab.adapter("plus", seed, kind="plus", learning_rate=SLOWER)
    return {name: lab.similarity(lab.prompted(adapter, seed)) for name, adapter in made.items()}


def size(lab: Lab, seed: int) -> Numbers:
    model, adapter = lab.fine_tuned(seed)
    small = lab.adapter("decoupled", seed)
    count = sum(t.numel() for role in ("image_proj", "ip_adapter") for t in small[role].values())
    unet = sum(p.numel() for p in lab.base.model.model.diffusion_model.parameters())
    return {
        "adapter": lab.similarity(lab.prompted(small, seed)),
        "full fine-tuning": lab.similarity(lab.prompted(adapter, seed, model=model)),
        "adapter's parameters, of all": count / (count + unet),
    }


def _least_step(numbers: Numbers) -> float:
    values = list(numbers.values())
    return min(b - a for a, b in pairwise(values))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "decoupled cross-attention beats concatenated tokens", "4.4.1", decoupled,
        lambda n: n["decoupled"] - n["concatenated"], "CLIP-I gained", ("decoupled",),
    ),
    Claim(
        "the likeness grows with the weight", "3.2.2", sweep,
        _least_step, "least growth from one weight to the next", tuple(f"weight {w:g}" for w in WEIGHTS),
    ),
    Claim(
        "text and image act together", "4.3", text_and_image,
        lambda n: n["text and image"] - max(n["text alone"], n["image alone"]), "gained over the better one alone",
        ("text and image",), axis="likeness to the reference with the text's shape",
    ),
    Claim(
        "an adapter works on a fine-tuned base without training", "4.2.2", custom_model,
        lambda n: n["fine-tuned base"] - (n["own base"] + n["fine-tuned base, no image"]) / 2,
        "over half of the way from no image to the own base", ("fine-tuned base",),
    ),
    Claim(
        "it works with a ControlNet that was trained on the base alone", "4.2.3", control,
        lambda n: min(
            n["overlap, with ControlNet"] - n["overlap, without"], n["likeness, with image"] - n["likeness, without"]
        ),
        "the lesser of overlap and CLIP-I gained", ("overlap, with ControlNet", "likeness, with image"),
        axis="overlap with the given shape; likeness",
    ),
    Claim(
        "guidance gains more where the image was dropped in training", "3.2.3", dropping,
        _gained_by_guidance, "CLIP-I gained by guidance; over never dropped, where that gains too",
        (f"dropped, CFG {toy.CFG:g}",),
    ),
    Claim(
        "fine-grained tokens are more like the reference than global ones", "4.4.2", tokens,
        lambda n: n["resampler, 16 tokens"] - n["4 tokens"], "CLIP-I gained", ("resampler, 16 tokens",),
    ),
    Claim(
        "an adapter is as good as full fine-tuning", "1", size,
        lambda n: n["adapter"] - 0.95 * n["full fine-tuning"], "over 95 % of full fine-tuning's CLIP-I",
        ("adapter",), ("adapter's parameters, of all",),
    ),
)  # fmt: skip


def try_all(lab: Lab, claims: Sequence[Claim], seeds: Sequence[int]) -> dict[str, list[Numbers]]:
    """By claim, the numbers of every seed."""
    found: dict[str, list[Numbers]] = {}
    for claim in claims:
        found[claim.name] = [claim.measure(lab, seed) for seed in seeds]
        margins = [claim.margin(numbers) for numbers in found[claim.name]]
        sys.stdout.write(f"{'holds' if min(margins) > 0 else 'DOES NOT HOLD'}: {claim.name} {margins}\n")
        sys.stdout.flush()
    return found
