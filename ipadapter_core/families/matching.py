"""Which K'/V' pair of an adapter belongs to which site of a model."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import MismatchError
from ..spec import AdapterSpec
from .family import Family
from .site import Site
from .table import family_of


def match_sites(spec: AdapterSpec, name: str, sites: Sequence[Site]) -> tuple[int, ...]:
    """For each site the index of its K'/V' pair in the adapter.

    An adapter fits a model with exactly its sites, or one that lacks some of them. name: of the adapter, for messages.
    Raises MismatchError otherwise.
    """
    if not sites:
        raise MismatchError(
            f"{name} is an adapter for {spec.family}, but the connected model has no UNet cross-attention "
            "(it may be a Flux, SD3 or other transformer). Load an SD1.5 or SDXL checkpoint."
        )
    family = family_of(sites)
    if spec.context_width == sites[0].context_width:
        if spec.site_widths == tuple(site.width for site in sites):
            return tuple(range(len(sites)))
        indices = _indices_of_fewer(spec, family, sites)
        if indices:
            return indices
    raise MismatchError(
        f"{name} is an adapter for {spec.family}, but the connected model is {family.name}. "
        f"The adapter has {len(spec.site_widths)} sites of context width {spec.context_width}, "
        f"the model {len(sites)} of {sites[0].context_width}. "
        f"Load an adapter for {family.name}, or a checkpoint of the adapter's family."
    )


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
