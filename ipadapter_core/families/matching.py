"""Which K'/V' pair of an adapter belongs to which site of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import MismatchError
from ..spec import AdapterSpec
from .family import Family
from .site import Site
from .table import NO_SITES, family_named, family_of

_WAN = "No IP-Adapter was released for Wan: files that are said to be for it hold that of another model, as SD3.5 Large."


def match_sites(spec: AdapterSpec, name: str, sites: Sequence[Site]) -> tuple[int | None, ...]:
    """For each site the index of its K'/V' pair in the adapter; None where an adapter of its kind has none.

    An adapter fits a model with exactly its sites, or one that lacks some of them. name: of the adapter, for messages.
    Raises MismatchError otherwise.
    """
    if not sites:
        raise MismatchError(
            f"{name} is an adapter for {spec.family}, but the connected model has no UNet cross-attention "
            f"{NO_SITES}{_said_to_be_for_wan(name)}"
        )
    family = family_of(sites)
    if _of_one_kind(spec, family, sites[0]):
        acting = [site for site in sites if not spec.entry.stages or site.stage in spec.entry.stages]
        if spec.site_widths == tuple(site.width for site in acting):
            return tuple(acting.index(site) if site in acting else None for site in sites)
        indices = _indices_of_fewer(spec, family, sites)
        if indices:
            return indices
    model = f"{family.name} of other sizes" if family.adapters_of == spec.family else family.name
    raise MismatchError(
        f"{name} is an adapter for {spec.family}, but the connected model is {model}. "
        f"The adapter has {_sizes(spec.site_widths, spec.context_width)}, "
        f"the model {_sizes([site.width for site in sites], sites[0].context_width)}. "
        f"{_remedy(spec, family)}"
    )


def _remedy(spec: AdapterSpec, family: Family) -> str:
    if family.adapters_of == spec.family:
        return "Load an adapter or a model of the other's sizes."
    if not family.released:
        return (
            f"Nobody released an adapter for {family.name}: load one that was trained with this pack, or a model of the "
            "adapter's family."
        )
    if family_named(family.name) is None:  # nobody released an adapter for it
        why = f"{family.caution}. " if family.caution else ""
        return f"{why}Load a model of the adapter's family."
    return f"Load an adapter for {family.adapters_of}, or a checkpoint of the adapter's family."


def _said_to_be_for_wan(name: str) -> str:
    return f" {_WAN}" if re.search(r"(?<![a-z])wan(?![a-z])", name.lower()) else ""


def _of_one_kind(spec: AdapterSpec, family: Family, site: Site) -> bool:
    """Whether an adapter may belong to a model, but for its sites."""
    if spec.entry.architecture != family.architecture.adapters_of:
        return False
    if site.context_width:
        return spec.context_width == site.context_width
    return family_named(spec.family) is None or spec.family == family.adapters_of


def _sizes(widths: Sequence[int], context_width: int) -> str:
    of = f" of context width {context_width}" if context_width else ""
    return f"{len(widths)} sites up to {max(widths)} wide{of}"


def _indices_of_fewer(spec: AdapterSpec, family: Family, sites: Sequence[Site]) -> tuple[int, ...] | None:
    """By position, where the model has a part of the adapter's sites, all of equal width."""
    positions = family.architecture.positions.get(len(spec.site_widths), ())
    number = {position: index for index, position in enumerate(positions)}
    indices = [number.get((site.label, site.depth)) for site in sites]
    if any(
        index is None or spec.site_widths[index] != site.width
        for index, site in zip(indices, sites, strict=True)
    ):
        return None
    return tuple(index for index in indices if index is not None)
