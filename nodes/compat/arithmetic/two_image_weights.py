"""Weight types with two sources of tokens: a composition image, or the image on the negative side (precise types).

Block sets as in `weighting`. Each source has its own weight at every site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from ....ipadapter_core.families.site import Site, block_labels
from ....ipadapter_core.families.table import family_of
from ....ipadapter_core.weighting import (
    WEIGHT_TYPES,
    composition_blocks,
    known_blocks,
    site_weights,
    style_blocks,
)

# fraction of the boost in blocks that are neither style nor composition blocks
REST = 0.1


class Source(str, Enum):
    IMAGE = "image"
    COMPOSITION = "composition image"
    NEGATED = "image on the negative side"


@dataclass(frozen=True)
class Strengths:
    """weight: of the image. composition: of the composition image. boost: of precise types, beside the weight."""

    weight: float
    composition: float
    boost: float


ByLayer = Mapping[str, float]
BySource = dict[Source, ByLayer]
Rule = Callable[[ByLayer, ByLayer, tuple[str, ...], Strengths], BySource]


def _times(blocks: ByLayer, weight: float) -> ByLayer:
    return {layer: factor * weight for layer, factor in blocks.items()}


def _both(style: ByLayer, layout: ByLayer, _: tuple[str, ...], s: Strengths) -> BySource:
    return {Source.IMAGE: _times(style, s.weight), Source.COMPOSITION: _times(layout, s.composition)}


def _strong_both(style: ByLayer, layout: ByLayer, names: tuple[str, ...], s: Strengths) -> BySource:
    others = {name: s.weight for name in names if name not in layout}
    return {Source.IMAGE: others, Source.COMPOSITION: dict.fromkeys(layout, s.composition)}


def _precise_style(style: ByLayer, layout: ByLayer, _: tuple[str, ...], s: Strengths) -> BySource:
    return {Source.IMAGE: _times(style, s.weight), Source.NEGATED: _times(layout, s.boost)}


def _precise_layout(style: ByLayer, layout: ByLayer, names: tuple[str, ...], s: Strengths) -> BySource:
    others = {name: REST * s.boost for name in names if name not in layout}
    return {Source.IMAGE: _times(layout, s.weight), Source.NEGATED: others | dict(_times(style, s.boost))}


_RULES: dict[str, Rule] = {
    "style and composition": _both,
    "strong style and composition": _strong_both,
    "style transfer precise": _precise_style,
    "composition precise": _precise_layout,
}
PRECISE = ("style transfer precise", "composition precise")
ALL_TYPES = (*WEIGHT_TYPES, *PRECISE)


def two_image_weights(
    sites: tuple[Site, ...], weight_type: str, strengths: Strengths
) -> dict[Source, tuple[float, ...]]:
    """λ of every site for each source of tokens. Raises MismatchError for an unknown type or family."""
    rule = _RULES.get(weight_type)
    if rule is None:
        return {Source.IMAGE: site_weights(sites, strengths.weight, weight_type)}
    family = family_of(sites)
    style, layout = (known_blocks(of, family, weight_type) for of in (style_blocks, composition_blocks))
    made = rule(style, layout, block_labels(sites), strengths)
    return {source: _by_site(sites, weights) for source, weights in made.items()}


def two_image_weights_by_layer(
    sites: tuple[Site, ...], weight_type: str, weights: Mapping[int, float]
) -> dict[Source, tuple[float, ...]]:
    """The same for a weight of each attention block by its number, as the UNet runs them; others get none.

    Of the weight type only the negative side of the precise ones is kept.
    """
    names = block_labels(sites)
    given = {names[number]: weight for number, weight in weights.items() if 0 <= number < len(names)}
    if weight_type not in PRECISE:
        return {Source.IMAGE: _by_site(sites, given)}
    layout = known_blocks(composition_blocks, family_of(sites), weight_type)
    inside = {name: weight for name, weight in given.items() if name in layout}
    outside = {name: weight for name, weight in given.items() if name not in layout}
    image, negated = (outside, inside) if weight_type == PRECISE[0] else (inside, outside)
    return {Source.IMAGE: _by_site(sites, image), Source.NEGATED: _by_site(sites, negated)}


def _by_site(sites: tuple[Site, ...], weights: ByLayer) -> tuple[float, ...]:
    return tuple(weights.get(site.label, 0.0) for site in sites)
