"""Weights of attention blocks as text: 'double 0-8: 0.5, single: 0'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from .errors import SettingError, shown
from .values import weight

ALL = "all"
_PART = re.compile(r"(?P<stage>[a-z]+)(?:[ _]*(?P<first>\d{1,4})(?:\s*(?:-|–|to)\s*(?P<last>\d{1,4}))?)?")
_EXPECTED = "Write a block or several and a weight, such as 'double 3: 0.5, double 5-8: 0.2, single: 0'"
_MANY = 25  # labels that are still listed one by one


def block_weights(text: str, labels: Sequence[str], model: str) -> dict[str, float]:
    """Weights by label of the blocks that the text names; of two that name one block the later counts.

    labels: of the model's blocks, in order. A part names one ('double 3'), a row of them by its ends ('double 3-8'), a
    stage ('double') or 'all'. Raises SettingError for what is none of these, and for blocks that the model does not have.
    """
    made: dict[str, float] = {}
    for part in re.split(r"[,;\n]+", text):
        if part.strip():
            name, _, written = part.replace("=", ":").rpartition(":")
            made |= dict.fromkeys(
                _named(name, part, labels, model), weight(written.strip(), f"the weight of '{name.strip()}'")
            )
    return made


def _named(name: str, part: str, labels: Sequence[str], model: str) -> list[str]:
    match = _PART.fullmatch(" ".join(name.lower().split()))
    if match is None:
        raise SettingError(f"blocks: '{shown(part.strip(), 60)}' is no block and its weight. {_EXPECTED}.")
    stage, first, last = match["stage"], match["first"], match["last"]
    if first is None:
        found = [label for label in labels if stage in (ALL, label.split(" ")[0])]
        asked = [stage] if not found else []
    else:
        ends = [f"{stage} {int(number)}" for number in (first, last or first)]
        asked = [end for end in ends if end not in labels]
        found = list(labels[labels.index(ends[0]) : labels.index(ends[1]) + 1]) if not asked else []
    if asked or not found:
        raise SettingError(
            f"{model} has no attention block '{shown(asked[0] if asked else name.strip(), 40)}'; it has "
            f"{labels_in_words(labels)}. Name blocks of the connected model."
        )
    return found


def labels_in_words(labels: Sequence[str]) -> str:
    """Each label, or of many the rows of consecutive ones: 'double 0-18, single 0-37'."""
    return ", ".join(
        labels if len(labels) <= _MANY else (name for name, _ in _rows(dict.fromkeys(labels, 1.0)))
    )


def weights_in_words(weights: Mapping[str, float]) -> str:
    """'double 0-18 1, single 0-37 0.5': each block and its weight, or of many the rows of equal ones."""
    pairs = weights.items() if len(weights) <= _MANY else _rows(weights)
    return ", ".join(f"{label} {value:g}" for label, value in pairs)


def _rows(weights: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Neighbours of one stage and one weight as one row."""
    for (stage, value), run in groupby(weights, key=lambda label: (label.split(" ")[0], weights[label])):
        ends = [label.rpartition(" ")[2] for label in run]
        yield (f"{stage} {ends[0]}-{ends[-1]}" if len(ends) > 1 else f"{stage} {ends[0]}"), value
