"""SpotDiffusion (of ComfyUI-TiledDiffusion), which shifts the picture before it cuts tiles.

Where it shifts both ways it shifts the picture along one axis only, but whatever has the picture's shape along both, so
the places that come with a call are off along the other axis. Its own numbers tell by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...ipadapter_core.masking import Place


def shifts_tiles(wrapper: Any) -> bool:
    """Whether the model_function_wrapper of a run is of this kind."""
    return getattr(wrapper, "uniform_distribution", None) is not None and hasattr(wrapper, "tile_height")


def shifted_places(wrapper: Any, sigma: float, places: Sequence[Place]) -> tuple[Place, ...]:
    """The places of the tiles of this step, put right."""
    known = [float(each) for each in wrapper.sigmas.tolist()]
    step = min(range(len(known)), key=lambda n: abs(known[n] - sigma))
    down, right = (int(shifts[min(step, len(shifts) - 1)]) for shifts in wrapper.uniform_distribution)
    height, width = places[0].full_height, places[0].full_width
    if wrapper.tile_height >= height or wrapper.tile_width >= width or not (down and right):
        return tuple(places)
    even = step % 2 == 0
    along_height = even if wrapper.tile_height > wrapper.tile_width else not even
    if along_height:
        return tuple(replace(place, left=(place.left + right) % width) for place in places)
    return tuple(replace(place, top=(place.top + down) % height) for place in places)
