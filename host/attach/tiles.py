"""ComfyUI-TiledDiffusion cuts the picture into tiles in its model_function_wrapper, and fails on a conditioning of the
picture's own size. So the planes are taken out in front of it and cut as it cuts the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .layout_cond import LAYOUT_COND


def hand_on_tiles(model_options: dict[str, Any]) -> None:
    """model_options: of one run, its own. Where it samples in tiles, every call gets the planes of its tiles."""
    theirs = model_options.get("model_function_wrapper")
    if hasattr(theirs, "batched_bboxes") and hasattr(theirs, "tile_height"):
        model_options["model_function_wrapper"] = TellTiles(theirs)


class TellTiles:
    """Around the wrapper of that pack: hands it the call without planes, and each of its calls those of its tiles."""

    def __init__(self, theirs: Any):
        self.theirs = theirs

    def __call__(self, model_function: Callable[..., Tensor], args: Mapping[str, Any]) -> Tensor:
        given = dict(args["c"])
        planes, numbers = given.pop(LAYOUT_COND, None), count()
        if planes is None:
            return self.theirs(model_function, args)

        def with_planes(x: Tensor, t: Tensor, **c: Any) -> Tensor:
            shifted = _shifted(planes, self.theirs, float(t[0]))
            boxes = self.theirs.batched_bboxes[next(numbers)]
            return model_function(
                x, t, **c, **{LAYOUT_COND: torch.cat([shifted[box.slicer] for box in boxes])}
            )

        return self.theirs(with_planes, {**args, "c": given})

    def to(self, *_: Any) -> TellTiles:
        """The host moves a run's options between devices; nothing here is on one."""
        return self


def _shifted(planes: Tensor, theirs: Any, sigma: float) -> Tensor:
    """The planes rolled as SpotDiffusion rolls the picture in this step: where it could both ways, along one axis only."""
    if getattr(theirs, "uniform_distribution", None) is None:
        return planes
    known = theirs.sigmas.tolist()
    step = min(range(len(known)), key=lambda n: abs(known[n] - sigma))
    down, right = (int(shifts[min(step, len(shifts) - 1)]) for shifts in theirs.uniform_distribution)
    height, width = planes.shape[-2:]
    down, right = down * (theirs.tile_height < height), right * (theirs.tile_width < width)
    if down and right:
        along_height = (step % 2 == 0) == (theirs.tile_height > theirs.tile_width)
        down, right = (down, 0) if along_height else (0, right)
    return planes.roll((down, right), (-2, -1))
