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
    network: Any = torch.compile(subject.model.get_model_object("diffusion_model"), backend=backend)
    base = None
    for name, model in {
        "none": subject.model,
        f"1 {subject.rich}": subject.with_prompts(subject.rich),
        f"4 {subject.rich}": subject.with_prompts(subject.rich, 4),
    }.items():
        own = model.clone()
        own.add_object_patch("diffusion_model", network)
        eager, step = subject.forward(model), subject.forward(own)
        began = time.perf_counter()
        difference = relative(step(), eager())
        first = time.perf_counter() - began
        # the first result is written before the clock starts: compiling may take all of the time
        row = {"what": "compiled", "case": name, "backend": backend, "first step s": first}
        yield {**row, "difference to eager": difference}
        of_eager, of_compiled = map(median, interleaved([eager, step], rounds, subject.place.device))
        base = base or of_compiled
        yield {"what": "compiled", "case": f"{name}, eager", "ms": of_eager}
        yield {
            "what": "compiled",
            "case": f"{name}, compiled",
            "ms": of_compiled,
            "of compiled base": of_compiled / base,
        }
