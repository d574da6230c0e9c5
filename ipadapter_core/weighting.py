"""How strong in which block: weight types over the blocks, weights per attention block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .blocks import labels_in_words
from .errors import MismatchError, SettingError
from .families.family import BlockFactors, Family
from .families.site import Site, block_labels
from .families.table import FAMILIES, family_of


class BlockPosition(NamedTuple):
    """A block of the model. stage: as of Site; position: 0..total−1 as the model runs its blocks."""

    label: str
    stage: str
    position: int
    total: int
    family: Family


Curve = Callable[[BlockPosition], float]
BlocksOf = Callable[[Family], BlockFactors]


def _ease(shape: Callable[[float], float]) -> Curve:
    """A curve over relative depth that keeps 5 % at its weak end."""
    return lambda block: 0.05 + 0.95 * shape(block.position / block.total)


def _stage(stage: str, inside: float, outside: float) -> Curve:
    def curve(block: BlockPosition) -> float:
        stages = block.family.architecture.stages
        if stage not in stages:
            raise MismatchError(
                f"a weight type of {stage} blocks came for {block.family.name}, whose blocks are "
                f"{' and '.join(stages)}. Use 'linear', or one of the others."
            )
        return inside if block.stage == stage else outside

    return curve


def _blocks(blocks_of: BlocksOf, name: str) -> Curve:
    """Factors of named blocks, 0 elsewhere."""
    return lambda block: known_blocks(blocks_of, block.family, name).get(block.label, 0.0)


def style_blocks(family: Family) -> BlockFactors:
    return family.style


def composition_blocks(family: Family) -> BlockFactors:
    return family.composition


def known_blocks(blocks_of: BlocksOf, family: Family, name: str) -> BlockFactors:
    """The blocks of a set in models of this family, for the weight type `name`. Raises MismatchError if none is known."""
    blocks = blocks_of(family)
    if not blocks:
        known = " and ".join(row.name for row in FAMILIES if blocks_of(row) and row.adapters_of == row.name)
        raise MismatchError(
            f"weight type '{name}' is known for {known}, not for {family.name}. "
            "Use 'linear', or set blocks with ImagePromptLayerWeights."
        )
    return blocks


_OF_BLOCKS: dict[str, BlocksOf] = {
    "style transfer": style_blocks,
    "composition": composition_blocks,
    "strong style transfer": lambda family: family.strong_style,
    "style and composition": lambda family: {**family.style, **family.composition},
}
WEIGHT_TYPES: dict[str, Curve] = {
    "linear": lambda block: 1.0,
    "ease in": _ease(lambda depth: 1 - depth),
    "ease out": _ease(lambda depth: depth),
    "ease in-out": _ease(lambda depth: 1 - abs(2 * depth - 1)),
    "reverse in-out": _ease(lambda depth: abs(2 * depth - 1)),
    "weak input": _stage("input", 0.2, 1.0),
    "weak middle": _stage("middle", 0.2, 1.0),
    "weak output": _stage("output", 0.2, 1.0),
    "strong middle": _stage("middle", 1.0, 0.2),
    **{name: _blocks(blocks_of, name) for name, blocks_of in _OF_BLOCKS.items()},
}


def _require_blocks(
    own: Mapping[str, float], labels: Sequence[str], places: Sequence[str], family: Family
) -> None:
    """Raise MismatchError for weights of blocks that the model, or the adapter, does not have."""
    unknown = [label for label in own if label not in labels]
    if unknown:
        raise MismatchError(
            f"{family.name} has no attention block '{unknown[0]}'; it has: {labels_in_words(labels)}. "
            "Connect the layer weights of this model."
        )
    idle = [label for label, weight in own.items() if weight not in (0, 1) and label not in places]
    if idle:
        raise MismatchError(
            f"the adapter does not act in block '{idle[0]}', which the layer weights give {own[idle[0]]:g}; it acts in "
            f"{labels_in_words(places)}. Leave the others at 1 or 0."
        )


def source_of(weight_type: str, family: Family) -> str:
    """Where it is from that these blocks of the family carry what the weight type says, where that is an experiment."""
    return family.experimental if weight_type in _OF_BLOCKS else ""


def site_weights(
    sites: tuple[Site, ...],
    weight: float,
    weight_type: str,
    layer_weights: Mapping[str, float] | None = None,
    acting: Sequence[object] | None = None,
) -> tuple[float, ...]:
    """λ of every site, in checkpoint order: weight × curve × the block's own weight.

    acting: for each site the adapter's pair, None where it has none: the curve is over the blocks of the others.
    """
    own = layer_weights or {}
    if weight_type not in WEIGHT_TYPES:
        raise SettingError(f"unknown weight type '{weight_type}'; choose one of: {', '.join(WEIGHT_TYPES)}.")
    labels, family = block_labels(sites), family_of(sites)
    curved = (
        sites if acting is None else [s for s, pair in zip(sites, acting, strict=True) if pair is not None]
    )
    places = block_labels(curved)
    _require_blocks(own, labels, places, family)
    curve = WEIGHT_TYPES[weight_type]
    factors = {
        site.label: curve(
            BlockPosition(site.label, site.stage, places.index(site.label), len(places), family)
        )
        for site in curved
    }
    if not any(factors.values()):
        raise MismatchError(
            f"weight type '{weight_type}' is for blocks of {family.name} in which the adapter does not act: it acts in "
            f"{labels_in_words(places)}. Use 'linear', or set blocks with ImagePromptLayerWeights."
        )
    return tuple(weight * own.get(site.label, 1.0) * factors.get(site.label, 0.0) for site in sites)
