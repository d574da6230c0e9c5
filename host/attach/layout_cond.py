"""A conditioning that says of every row of a call which picture it is of, where in it, and for whom.

Whatever cuts, repeats or reorders the rows of a call (areas, tiles, context windows) must do the same to every
conditioning of the latent's shape, as for inpainting models, and does so generically. So one of our own goes with them,
on the CPU, where reading it stops no GPU; our APPLY_MODEL wrapper takes it out again.
"""

from __future__ import annotations

from typing import Any

import comfy.conds
import numpy as np
import torch
from torch import Tensor

from ...ipadapter_core.masking import Crop
from .calls import Layout

LAYOUT_COND = "image_prompt_place"  # name of the conditioning
_PICTURE, _ROW, _COLUMN, _ROLE = range(4)  # its planes
_UNKNOWN = -1


class LayoutCond(comfy.conds.CONDNoiseShape):
    """(pictures, 4, h, w): number of the picture, row, column, role."""

    def process_cond(self, batch_size: int, *args: Any, **given: Any) -> LayoutCond:
        """The host gives `area` by name or by place, and a device."""
        data, area = self.cond, given.get("area", args[-1] if args else None) or ()
        for i in range(len(area) // 2):
            data = data.narrow(i + 2, area[i + len(area) // 2], area[i])
        times, rest = divmod(batch_size, data.shape[0])
        if rest:  # a part of the pictures, chosen by somebody who did not choose here too
            data = data[:1].repeat(batch_size, 1, 1, 1)
            data[:, _PICTURE] = _UNKNOWN
        elif times > 1:
            data = data.repeat(times, 1, 1, 1)
        return self._copy_with(data)


def layout_cond(pictures: int, height: int, width: int, role: int) -> LayoutCond:
    planes = torch.empty(pictures, 4, height, width)
    planes[:, _PICTURE] = torch.arange(pictures)[:, None, None]
    planes[:, _ROW] = torch.arange(height)[:, None]
    planes[:, _COLUMN] = torch.arange(width)
    planes[:, _ROLE] = role
    return LayoutCond(planes)


def read_layout(planes: Tensor, rows: int, full: tuple[int, int]) -> Layout | None:
    """The layout that a call's planes (rows, 4, h, w) give. full: (H, W) of the latent. None where they do not fit.

    Blocks are as long as rows of one role and crop go on with growing numbers. crops is None where they are cut in a
    way that is no rectangle, frames where a number is not known or blocks have different ones.
    """
    if planes.shape[0] != rows:
        return None
    planes_ = planes.detach().cpu().float().numpy()
    roles = planes_[:, _ROLE, 0, 0].round().astype(int).tolist()
    pictures = planes_[:, _PICTURE, 0, 0].round().astype(int).tolist()
    crops = [_crop(row, full) for row in planes_]
    length = next(
        (
            n
            for n in range(1, rows)
            if (roles[n], crops[n]) != (roles[0], crops[0]) or pictures[n] <= pictures[n - 1]
        ),
        rows,
    )
    if _UNKNOWN in pictures or not _even(pictures, roles, crops, length):
        length = _common_length(roles, crops)
        frames = None if _UNKNOWN in pictures else _pattern(pictures, length)
    else:
        frames = tuple(pictures[:length])
    firsts = crops[::length]
    known = None if None in firsts else tuple(crop for crop in firsts if crop is not None)
    return Layout(tuple(roles[::length]), known, frames)


def _even(pictures: list[int], roles: list[int], crops: list[Any], length: int) -> bool:
    """Whether every block of this length has one role and crop, and the pictures of the first."""
    if len(pictures) % length:
        return False
    blocks = range(0, len(pictures), length)
    return all(
        pictures[n : n + length] == pictures[:length]
        and len({*zip(roles[n : n + length], crops[n : n + length], strict=True)}) == 1
        for n in blocks
    )


def _common_length(roles: list[int], crops: list[Any]) -> int:
    """The longest block such that every one has one role and crop."""
    rows = len(roles)
    return next(
        length
        for length in range(rows, 0, -1)
        if rows % length == 0
        and all(
            len({*zip(roles[n : n + length], crops[n : n + length], strict=True)}) == 1
            for n in range(0, rows, length)
        )
    )


def _pattern(pictures: list[int], length: int) -> tuple[int, ...] | None:
    first = pictures[:length]
    same = all(pictures[n : n + length] == first for n in range(0, len(pictures), length))
    return tuple(first) if same else None


def _crop(planes: np.ndarray[Any, Any], full: tuple[int, int]) -> Crop | None:
    rows, columns = planes[_ROW, :, 0], planes[_COLUMN, 0, :]
    top, left = int(rows[0]), int(columns[0])
    if not (_runs_on(rows, full[0]) and _runs_on(columns, full[1])):
        return None
    return Crop(top, left, len(rows), len(columns), *full)


def _runs_on(numbers: np.ndarray[Any, Any], size: int) -> bool:
    return bool((numbers == (numbers[0] + np.arange(len(numbers))) % size).all())
