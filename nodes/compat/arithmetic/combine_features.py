"""Features of several pictures combined before projection, in the modes of the de-facto pack's nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ....ipadapter_core.errors import MismatchError, SettingError


def combine_features(rows: Tensor, mode: str, exact: bool = False) -> Tensor:
    """Features (n, d) or (n, t, d) -> one row (1, d) or (1, t, d); 'concat' keeps all n. mode: one of MODES.

    One row stays as it is. 'norm average' divides each coordinate by its norm over the rows; a coordinate that is 0 in all
    of them stays 0. exact: the de-facto pack's arithmetic in these cases too, which gives NaN or only signs. Raises
    SettingError for an unknown mode.
    """
    if mode not in _MODES:
        raise SettingError(f"unknown way to combine '{mode}'; choose one of: {', '.join(MODES)}.")
    if len(rows) == 1 and not exact:
        return rows
    made = _MODES[mode](rows)
    return made if exact else made.nan_to_num(0.0) if mode == "norm average" else made


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Features (n, ...) one after the other. Raises MismatchError where their shapes differ beyond n."""
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
