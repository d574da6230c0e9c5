"""Features of several pictures brought together before projection, as the de-facto pack's nodes offer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ....ipadapter_core.errors import MismatchError


def blend(rows: Tensor, mode: str, exact: bool = False) -> Tensor:
    """Features (n, d) or (n, t, d) -> one row; 'concat' leaves all n. mode: one of MODES.

    Nothing to blend, that is one row, stays as it is. 'norm average' scales each coordinate by its length over the
    rows; a coordinate that is 0 in all of them stays 0.
    exact: the de-facto pack's arithmetic even there, which gives NaN or bare signs.
    """
    if mode not in _MODES:
        raise MismatchError(f"unknown way to combine '{mode}'; choose one of: {', '.join(MODES)}.")
    if len(rows) == 1 and not exact:
        return rows
    made = _MODES[mode](rows)
    return made if exact else made.nan_to_num(0.0) if mode == "norm average" else made


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Features (n, ...) one after the other. Raises MismatchError where they are of different encoders or kinds."""
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise MismatchError(
            f"embeds of shapes {', '.join(str(tuple(part.shape)) for part in parts)} do not combine: all but the first "
            "number must agree. Encode them with the same adapter and encoder."
        )
    return torch.cat([part.to(parts[0]) for part in parts])


def _subtract(rows: Tensor) -> Tensor:
    return rows[:1] - rows[1:].mean(0, keepdim=True)


def _norm_average(rows: Tensor) -> Tensor:
    return (rows / rows.norm(dim=0, keepdim=True)).mean(0, keepdim=True)


_MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "concat": lambda rows: rows,
    "add": lambda rows: rows.sum(0, keepdim=True),
    "subtract": _subtract,
    "average": lambda rows: rows.mean(0, keepdim=True),
    "norm average": _norm_average,
    "max": lambda rows: rows.amax(0, keepdim=True),
    "min": lambda rows: rows.amin(0, keepdim=True),
}
MODES = tuple(_MODES)
