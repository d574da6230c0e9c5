"""What is measured: a central case for each family and kind, and one change at a time from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

FAMILIES = ("SD1.5", "SDXL")
KINDS = ("base", "plus", "full")
CFG, NO_CFG = (1, 0), (0,)  # cond_or_uncond of the host


@dataclass(frozen=True)
class Case:
    """One UNet call. pictures: of each conditioning. window: (start, end) of the prompt, as parts of sampling."""

    family: str
    kind: str
    prompts: int = 1
    mask: bool = False
    pictures: int = 1
    chunks: tuple[int, ...] = CFG
    dtype: torch.dtype = torch.float32
    window: tuple[float, float] = (0.0, 1.0)
    change: str = "central"


CHANGES = {
    "central": {},
    "4 prompts": {"prompts": 4},
    "mask": {"mask": True},
    "batch 4": {"pictures": 4},
    "CFG 1": {"chunks": NO_CFG},
    "window": {"window": (0.1, 0.9)},
    "bf16": {"dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
}


def cases(families: Sequence[str], kinds: Sequence[str]) -> Iterator[Case]:
    """By family and dtype, so that a UNet is built once."""
    central = [Case(family, kind) for family in families for kind in kinds]
    for family in families:
        for change, fields in CHANGES.items():
            yield from (replace(c, **fields, change=change) for c in central if c.family == family)
