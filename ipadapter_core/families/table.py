"""All families in one ordered table; what is in no row is an error."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import MismatchError
from . import unet
from .family import Architecture, Family
from .site import Exchanged, Site, as_it_stands

ARCHITECTURES: tuple[Architecture, ...] = (unet.UNET,)
FAMILIES: tuple[Family, ...] = (*unet.FAMILIES,)


def model_sites(network: nn.Module, exchanged: Exchanged = as_it_stands) -> tuple[Site, ...]:
    """The sites of a network in the order of released files; none where it is of no architecture that is known here.

    Raises MismatchError where an attention was exchanged for something that is none.
    """
    found = (architecture.find_sites(network, exchanged) for architecture in ARCHITECTURES)
    return next((sites for sites in found if sites), ())


def family_named(name: str) -> Family | None:
    """The row of this name."""
    return next((family for family in FAMILIES if family.name == name), None)


def family_of_shape(context_width: int, site_count: int, projects_context: bool = False) -> Family:
    """The family of a UNet, or of an adapter for one, by facts that its tensors show."""
    facts = context_width, site_count, projects_context
    rows = (f for f in FAMILIES if (f.context_width, f.site_count, f.projects_context) == facts)
    return next(rows, None) or unet.UNET.unnamed(context_width, site_count)


def family_of(sites: Sequence[Site], projects_context: bool = False) -> Family:
    """The family of a model, by its sites. Raises MismatchError where it has none."""
    if sites:
        return family_of_shape(sites[0].context_width, len(sites), projects_context)
    raise MismatchError(
        "the connected model has no UNet cross-attention (it may be a Flux, SD3 or other transformer). Load an SD1.5 or "
        "SDXL checkpoint."
    )
