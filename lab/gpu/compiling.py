"""torch.compile over a model with image prompts: the first step, the later ones, how near they are to eager."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch

from ..benchmarks.clock import interleaved
from .steps import Row, relative
from .subjects import Subject


def sections(subject: Subject, rounds: int) -> dict[str, Callable[[], Iterator[Row]]]:
    return {"compiled": lambda: compiled(subject, rounds)}


def compiled(subject: Subject, rounds: int) -> Iterator[Row]:
    """By inductor on a card. In small by a backend that translates nothing, since a processor's compiler takes minutes."""
    backend = "eager" if subject.place.small else "inductor"
    models = {"none": subject.model, f"1 {subject.rich}": subject.with_prompts(subject.rich)}
    models[f"4 {subject.rich}"] = subject.with_prompts(subject.rich, 4)
    network: Any = torch.compile(subject.model.get_model_object("diffusion_model"), backend=backend)
    steps: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        own = model.clone()
        own.add_object_patch("diffusion_model", network)
        eager, step = subject.forward(model), subject.forward(own)
        began = time.perf_counter()
        out = step()
        if subject.place.device.type == "cuda":
            torch.cuda.synchronize()
        first = time.perf_counter() - began
        yield {
            "what": "compiled",
            "case": name,
            "backend": backend,
            "first step s": first,
            "difference to eager": relative(out, eager()),
        }
        steps |= {name: eager, f"{name}, compiled": step}
    spent = dict(zip(steps, interleaved(list(steps.values()), rounds, subject.place.device), strict=True))
    base = median(spent["none, compiled"])
    for name, found in spent.items():
        yield {
            "what": "compiled",
            "case": name,
            "ms": median(found),
            "of compiled base": median(found) / base,
        }
