"""Notes on the scores: pictures and references that are not in them, and sets that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..ipadapter_core.errors import shown
from .matching import Matching
from .scoring import Result, shared_references

NAMED = 8


def notes(results: Sequence[Result], matchings: Mapping[str, Matching]) -> list[str]:
    """One line each; none where every method has the same number of readable pictures of every reference."""
    lines = [line for result in results for line in _of_method(result, matchings[result.name])]
    names = shared_references(results)
    for result in results:
        if own := [group.name for group in result.groups if group.name not in names]:
            lines.append(
                f"{shown(result.name)} has pictures of {len(own)} references that another method lacks: {_some(own)}."
            )
    return lines


def _of_method(result: Result, matching: Matching) -> Iterator[str]:
    name = shown(result.name)
    for why in result.broken:
        yield f"{name}, left out: {why}"
    if matching.bare:
        yield f"{name}: nothing was generated from {len(matching.bare)} references: {_some(matching.bare)}."
    if strangers := matching.strangers:
        yield f"{name}: {len(strangers)} pictures belong to no reference and are left out: {_some(strangers)}."
    counts = [len(group.generated) for group in result.groups]
    if min(counts) < max(counts):
        most = max(counts)
        fewer = [group.name for group in result.groups if len(group.generated) < most]
        yield (
            f"{name}: references have from {min(counts)} to {most} pictures, and count by them; fewer have {_some(fewer)}."
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(shown(name, 80) for name in names[:NAMED])}{more}"
