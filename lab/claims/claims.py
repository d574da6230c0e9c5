"""The paper's claims, as they are tried in the toy world.

Each claim has a measurement for every seed and a margin that must be above 0 in all of them. Those that do not hold are
reported too.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ..toy import models as toy
from ..toy import world
from .lab import REFERENCES, Lab
from .measures import Measures
from .settled import ARMS

host_nodes: Any = importlib.import_module("nodes")  # the host's

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# of all measures: what the VAE loses, and what is right but for its place
BOUNDS = ("a perfect copy", "right contents, another place")
# what is compared, by name
Found = dict[str, Measures]


@dataclass(frozen=True)
class Claim:
    """where: in the paper. measure: (lab, seed) -> measures of what is compared. margin: of them, above 0 where it holds.

    means: what the margin is. better: the names that are to be the highest. axis: what their likeness is to.
    """

    name: str
    where: str
    measure: Callable[..., Found]
    margin: Callable[[Found], float]
    means: str
    better: tuple[str, ...] = ()
    axis: str = "likeness to the reference"


def decoupled(lab: Lab, seed: int) -> Found:
    return {
        "decoupled": lab.measures(lab.prompted(lab.adapter("decoupled", seed), seed)),
        "concatenated": lab.measures(lab.prompted_by_concatenation(lab.concatenated(seed), seed)),
    }


def sweep(lab: Lab, seed: int) -> Found:
    adapter = lab.adapter("decoupled", seed)
    return {f"weight {w:g}": lab.measures(lab.prompted(adapter, seed, w)) for w in WEIGHTS}


def text_and_image(lab: Lab, seed: int) -> Found:
    """The word names a shape, the picture gives the rest. Wanted: that shape in the references' colours."""
    star = lab.wanted.shape.clone().fill_(world.SHAPES.index("star"))
    wanted = replace(lab.wanted, shape=star)
    adapter = lab.adapter("decoupled", seed)
    made = {
        "text and image": lab.prompted(adapter, seed, 0.5, "star"),
        "text alone": lab.prompted(adapter, seed, 0.0, "star"),
        "image alone": lab.prompted(adapter, seed, 0.5, ""),
    }
    return {name: lab.measures(pictures, wanted) for name, pictures in made.items()}


def custom_model(lab: Lab, seed: int) -> Found:
    adapter, model = lab.adapter("decoupled", seed), lab.custom(seed)
    return {
        "own base": lab.measures(lab.prompted(adapter, seed)),
        "fine-tuned base": lab.measures(lab.prompted(adapter, seed, model=model)),
        "fine-tuned base, no image": lab.measures(lab.prompted(adapter, seed, 0.0, model=model)),
    }


def control(lab: Lab, seed: int) -> Found:
    """The ControlNet gives the place and the shape, the picture gives the rest. Wanted: both."""
    drawn = world.make_scenes(REFERENCES, 500 + seed)
    placed = {name: getattr(drawn, name) for name in ("shape", "centre", "radius", "turn")}
    wanted = replace(lab.wanted, **placed)
    hints = world.silhouettes(wanted).movedim(1, -1)
    net, adapter = toy.load_controlnet(), lab.adapter("decoupled", seed)

    def hint(positive, negative):
        return host_nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, net, hints, 1.0, 0.0, 1.0
        )[:2]

    made = {
        "ControlNet and image": lab.prompted(adapter, seed, hint=hint),
        "image alone": lab.prompted(adapter, seed),
        "ControlNet alone": lab.prompted(adapter, seed, 0.0, hint=hint),
    }
    return {name: lab.measures(pictures, wanted) for name, pictures in made.items()}


def _gained_over_each(found: Found) -> float:
    both, image, net = found.values()
    return min(both["overlap"] - image["overlap"], both["likeness"] - net["likeness"])


def dropping(lab: Lab, seed: int) -> Found:
    """Guidance (CFG) leads away from the prediction without an image, which is trained on dropped images alone."""
    made = {
        "dropped": lab.adapter("decoupled", seed),
        "never dropped": lab.adapter("never dropped", seed, drop_text=0.0, drop_image=0.0, drop_both=0.0),
    }
    return {
        f"{name}, CFG {cfg:g}": lab.measures(lab.prompted(adapter, seed, cfg=cfg))
        for name, adapter in made.items()
        for cfg in (1.0, toy.CFG)
    }


def _gained_by_guidance(found: Found) -> float:
    without, with_, never_without, never_with = _likeness(found).values()
    return min(with_ - without, (with_ - without) - (never_with - never_without))


def tokens(lab: Lab, seed: int) -> Found:
    """Each trained until its held-out loss is flat; beside what bounds the measures."""
    with torch.inference_mode():
        moved = world.replace(lab.wanted, 4242)
        pairs = zip(BOUNDS, (lab.wanted, moved), strict=True)
        found = {name: lab.measures(lab.through_vae(scenes)) for name, scenes in pairs}
    for arm in filter(lambda arm: arm.is_tried(seed), ARMS):
        settled = arm.train(lab, seed)
        found[arm.name] = lab.measures(lab.prompted(settled.adapter, seed)) | {
            "held-out loss": settled.loss,
            "steps": settled.steps,
        }
    return found


def size(lab: Lab, seed: int) -> Found:
    model, adapter = lab.fine_tuned(seed)
    small = lab.adapter("decoupled", seed)
    count = sum(t.numel() for role in ("image_proj", "ip_adapter") for t in small[role].values())
    unet = sum(p.numel() for p in lab.base.model.model.diffusion_model.parameters())
    trained = {"adapter": count, "full fine-tuning": count + unet}
    return {
        name: lab.measures(pictures) | {"parameters": trained[name]}
        for name, pictures in {
            "adapter": lab.prompted(small, seed),
            "full fine-tuning": lab.prompted(adapter, seed, model=model),
        }.items()
    }


def _likeness(found: Found) -> dict[str, float]:
    return {name: measures["likeness"] for name, measures in found.items()}


def _over(better: str, *others: str, part: float = 1.0) -> Callable[[Found], float]:
    """Likeness of the one over that part of the best of the others."""
    return lambda found: found[better]["likeness"] - part * max(found[other]["likeness"] for other in others)


def _least_step(found: Found) -> float:
    return min(b - a for a, b in pairwise(_likeness(found).values()))


def _over_half_of_the_way(found: Found) -> float:
    own, other, without = _likeness(found).values()
    return other - (own + without) / 2


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "decoupled cross-attention beats concatenated tokens", "4.4.1", decoupled,
        _over("decoupled", "concatenated"), "CLIP-I gained", ("decoupled",),
    ),
    Claim(
        "the likeness grows with the weight", "3.2.2", sweep,
        _least_step, "least growth from one weight to the next", tuple(f"weight {w:g}" for w in WEIGHTS),
    ),
    Claim(
        "text and image act together", "4.3", text_and_image,
        _over("text and image", "text alone", "image alone"), "gained over the better one alone",
        ("text and image",), axis="likeness to the reference with the text's shape",
    ),
    Claim(
        "an adapter works on a fine-tuned base without training", "4.2.2", custom_model,
        _over_half_of_the_way, "over half of the way from no image to the own base", ("fine-tuned base",),
    ),
    Claim(
        "it works with a ControlNet that was trained on the base alone", "4.2.3", control,
        _gained_over_each, "overlap gained over the image alone, or likeness over the ControlNet alone: the lesser",
        ("ControlNet and image",), axis="likeness to the reference in the given shape",
    ),
    Claim(
        "guidance gains more where the image was dropped in training", "3.2.3", dropping,
        _gained_by_guidance, "CLIP-I gained by guidance; over never dropped, where that gains too",
        (f"dropped, CFG {toy.CFG:g}",),
    ),
    Claim(
        "fine-grained tokens are more like the reference than global ones", "4.4.2", tokens,
        _over("resampler", "4 tokens"), "CLIP-I gained", ("resampler",),
    ),
    Claim(
        "an adapter is as good as full fine-tuning", "1", size,
        _over("adapter", "full fine-tuning", part=0.95), "over 95 % of full fine-tuning's CLIP-I", ("adapter",),
    ),
)  # fmt: skip


def _place(lab: Lab) -> Path:
    return lab.folder / f"measured-{lab.steps}.json"


def _kept(lab: Lab) -> dict[str, Found]:
    """By `_key`, what the lab's folder has."""
    path = _place(lab)
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _key(claim: Claim, seed: int) -> str:
    return f"{claim.name}, seed {seed}"


def _measured(lab: Lab, claim: Claim, seed: int) -> Found:
    key = _key(claim, seed)
    if key not in _kept(lab):
        found = claim.measure(lab, seed)
        lab.folder.mkdir(parents=True, exist_ok=True)
        _place(lab).write_text(json.dumps(_kept(lab) | {key: found}, indent=1) + "\n", "utf-8")
    return _kept(lab)[key]


def what_is_measured(lab: Lab, claims: Sequence[Claim], seeds: Sequence[int]) -> dict[str, list[Found]]:
    """As try_all, of what the lab's folder has: claims may have fewer seeds, or be missing."""
    kept = _kept(lab)
    found = {claim.name: [kept[_key(claim, n)] for n in seeds if _key(claim, n) in kept] for claim in claims}
    return {name: each for name, each in found.items() if each}


def try_all(lab: Lab, claims: Sequence[Claim], seeds: Sequence[int]) -> dict[str, list[Found]]:
    """By claim, what was measured with every seed; what is in the lab's folder is not measured again."""
    found: dict[str, list[Found]] = {}
    for claim in claims:
        found[claim.name] = [_measured(lab, claim, seed) for seed in seeds]
        margins = [claim.margin(each) for each in found[claim.name]]
        sys.stdout.write(f"{'holds' if min(margins) > 0 else 'DOES NOT HOLD'}: {claim.name} {margins}\n")
        sys.stdout.flush()
    return found
