"""What each part of the plan measures."""

from __future__ import annotations

from typing import Any

import torch

from ..benchmarks.machine import host_version, machine
from . import compiling, steps, training
from .plan import Part, Sections
from .subjects import Place, subject

SMALL_ROUNDS = 1


def about(part: Part, device: str) -> dict[str, Any]:
    return machine(host_version(), torch.device(device), part.rounds)


def sections_of(part: Part, device: str, small: bool) -> Sections:
    """In small, numbers are of full precision: a processor computes few operations in half."""
    dtype = torch.float32 if small else getattr(torch, part.dtype)
    place = Place(torch.device(device), dtype, small)
    rounds = SMALL_ROUNDS if small else part.rounds
    if part.kind == "training":
        return training.sections(part.family, place)
    of = subject(part.family, place)
    return {"steps": steps, "compiled": compiling}[part.kind].sections(of, rounds)
