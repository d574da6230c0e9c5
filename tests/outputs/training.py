"""Cases of training: two steps through the node, and the weights that are saved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from helpers.training import SeededClip, ShrinkingVae
from safetensors.torch import load_file
from support import tiny

from . import models as m
from .running import Case

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("base", {}),
    "plus": ("plus", {}),
    "averaged": ("base", {"ema": 0.9, "seed": 1}),
    "accumulation": ("base", {"accumulation": 2, "schedule": "linear"}),
    "bf16": ("plus", {"precision": "bf16", "checkpointing": True}),
    "buckets": ("base", {"buckets": True, "size": 128, "schedule": "cosine", "warmup": 1}),
    "noise offset": ("base", {"noise_offset": 0.1, "weight_decay": 0.5}),
    "drops": ("base", {"drop_text": 0.3, "drop_image": 0.3, "drop_both": 0.3}),
    "start from": ("plus", {"start_from": True}),
}
_numbers = count()


def cases() -> Iterator[Case]:
    for name, (kind, recipe) in RECIPES.items():
        yield f"train/SD1.5/{name}", partial(trained, "SD1.5", kind, recipe)
    yield "train/SDXL/default", partial(trained, "SDXL", "base", {})


def trained(family: str, kind: str, recipe: dict[str, Any]) -> Any:
    """The tensors of every file that is saved."""
    start = {"start_from": m.adapter(family, kind)} if "start_from" in recipe else {}
    given = {
        "model": m.model(family),
        "vae": ShrinkingVae(),
        "clip": SeededClip(tiny.FAMILIES[family]),
        "clip_vision": m.encoder(family),
        "images": [m.picture(1, 1, 64, 96), m.picture(2, 1, 96, 64), m.picture(3, 2, 64, 64)],
        "captions": "one\ntwo\nthree\nfour",
        "kind": kind,
        "steps": 2,
        "batch_size": 2,
        "size": 64,
        "learning_rate": 0.01,
        "name": f"trained-{next(_numbers)}",
    }
    _, _, path = m.call("ImagePromptTrain", **{**given, **recipe, **start})
    return {file.name: load_file(file) for file in Path(path).parent.glob("*.safetensors")}
