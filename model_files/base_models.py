"""Which family a base model's file is of, and its blocks, by its header: before anybody has loaded it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..ipadapter_core.checkpoint import read_outline
from ..ipadapter_core.errors import CheckpointError, MissingFileError
from ..ipadapter_core.families.family import Family
from ..ipadapter_core.families.flux import DOUBLE, FLUX1, RELEASED, SINGLE
from ..ipadapter_core.families.table import family_named, family_of_shape
from ..ipadapter_core.families.unet import blocks_in_file

_STREAM = re.compile(rf"(?:^|\.)({DOUBLE}|{SINGLE})_blocks\.(\d+)\.")


@dataclass(frozen=True)
class BaseBlocks:
    """labels: of the blocks that users weight, in the order in which the model runs them."""

    family: Family
    labels: tuple[str, ...]


def base_blocks(path: Path) -> BaseBlocks | None:
    """None where the file cannot be read or is of no family that is known here."""
    try:
        shapes = read_outline(path, "model").shapes
    except (CheckpointError, MissingFileError):
        return None
    labels, context_width, sites = blocks_in_file(shapes)
    if labels:
        return BaseBlocks(family_of_shape(context_width, sites), labels)
    return _transformer(list(shapes))


def _transformer(keys: list[str]) -> BaseBlocks | None:
    streams = {(match[1], int(match[2])) for key in keys if (match := _STREAM.search(key))}
    counts = tuple(sum(stage == each for stage, _ in streams) for each in (DOUBLE, SINGLE))
    chroma = family_named("Chroma") if any("distilled_guidance_layer" in key for key in keys) else None
    if counts != RELEASED:
        return None
    labels = tuple(f"{stage} {number}" for stage, number in sorted(streams))
    return BaseBlocks(chroma or FLUX1, labels)
