"""All families in one ordered table; what is in no row is an error."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import MismatchError
from . import flux, lumina, qwen, sd3, unet
from .family import Architecture, Counts, Family
from .site import Exchanged, Site, as_it_stands

ARCHITECTURES: tuple[Architecture, ...] = (
    unet.UNET,
    flux.FLUX,
    flux.CHROMA,
    sd3.SD3,
    qwen.QWEN,
    lumina.NEXT_DIT,
)
FAMILIES: tuple[Family, ...] = (
    *unet.FAMILIES,
    *flux.FAMILIES,
    *sd3.FAMILIES,
    *qwen.FAMILIES,
    *lumina.FAMILIES,
)


NO_SITES = (
    "and is no Flux.1, Chroma, SD3.5, Qwen-Image, Z-Image or Lumina 2 (it may be Flux.2 or another transformer). Load an "
    "SD1.5, SDXL, Kolors, Flux.1, Chroma or SD3.5 Large model."
)


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
    return _family(unet.UNET, context_width, (site_count,), projects_context)


def _family(architecture: Architecture, context_width: int, counts: Counts, projects: bool) -> Family:
    facts = architecture, context_width, sum(counts), projects
    rows = (
        f
        for f in FAMILIES
        if (f.architecture, f.context_width, f.site_count, f.projects_context) == facts
        and f.by_stage in ((), counts)
    )
    return next(rows, None) or architecture.unnamed(context_width, counts)


def family_of(sites: Sequence[Site], projects_context: bool = False) -> Family:
    """The family of a model, by its sites. Raises MismatchError where it has none."""
    if sites:
        architecture = next(a for a in ARCHITECTURES if a.name == sites[0].architecture)
        stages = [site.stage for site in sites]
        counts = tuple(stages.count(stage) for stage in architecture.stages)
        return _family(architecture, sites[0].context_width, counts, projects_context)
    raise MismatchError(f"the connected model has no UNet cross-attention {NO_SITES}")
