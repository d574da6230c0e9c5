"""How strong: weight types over the blocks, weights per attention block, the window over sigma."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .errors import MismatchError
from .sites import Site, layers, model_family


class Place(NamedTuple):
    """An attention block of the model: block is input, middle or output; position runs 0..total−1 as the UNet runs."""

    layer: str
    block: str
    position: int
    total: int
    family: str


Curve = Callable[[Place], float]


def _ease(shape: Callable[[float], float]) -> Curve:
    """A curve over relative depth that keeps 5 % at its weak end."""
    return lambda place: 0.05 + 0.95 * shape(place.position / place.total)


def _block(block: str, inside: float, outside: float) -> Curve:
    return lambda place: inside if place.block == block else outside


def _blocks(by_family: Mapping[str, Mapping[str, float]], name: str) -> Curve:
    """Weights of named blocks, 0 elsewhere."""

    return lambda place: _of_family(by_family, place.family, name).get(place.layer, 0.0)


def _of_family(by_family: Mapping[str, Mapping[str, float]], family: str, name: str) -> Mapping[str, float]:
    blocks = by_family.get(_LIKE.get(family, family))
    if blocks is None:
        raise MismatchError(
            f"weight type '{name}' is known for {' and '.join(by_family)}, not for {family}. "
            "Use 'linear', or set blocks with ImagePromptLayerWeights."
        )
    return blocks


def blocks_of(
    by_family: Mapping[str, Mapping[str, float]], sites: tuple[Site, ...], name: str
) -> Mapping[str, float]:
    """The blocks of a set (STYLE, COMPOSITION) in this model, with their factors, for the weight type `name`."""
    return _of_family(by_family, model_family(sites), name)


# Pruned of SDXL's sites, with the names of those that are left.
_LIKE = {"SSD-1B": "SDXL", "Segmind Vega": "SDXL"}
_SD15 = [f"input {n}" for n in (1, 2, 4, 5, 7, 8)] + ["middle"] + [f"output {n}" for n in range(3, 12)]
_SDXL = [f"input {n}" for n in (4, 5, 7, 8)] + ["middle"] + [f"output {n}" for n in range(6)]
# InstantStyle (arXiv 2404.02733): SDXL's up_blocks.0.attentions.1 carries style, down_blocks.2.attentions.1 layout.
# SD1.5 has no such single block; these sets are those that users know from the de-facto pack.
STYLE = {"SDXL": {"output 1": 1.0}, "SD1.5": dict.fromkeys(_SD15[:4] + _SD15[9:], 1.0)}
COMPOSITION = {"SDXL": {"input 8": 1.0}, "SD1.5": {"input 7": 0.25, "input 8": 1.0}}
_STRONG_STYLE = {
    "SDXL": {name: 1.0 for name in _SDXL if name != "input 8"},
    "SD1.5": {name: 1.0 for name in _SD15 if name not in ("input 7", "input 8")},
}
_BOTH = {family: STYLE[family] | COMPOSITION[family] for family in STYLE}

WEIGHT_TYPES: dict[str, Curve] = {
    "linear": lambda place: 1.0,
    "ease in": _ease(lambda depth: 1 - depth),
    "ease out": _ease(lambda depth: depth),
    "ease in-out": _ease(lambda depth: 1 - abs(2 * depth - 1)),
    "reverse in-out": _ease(lambda depth: abs(2 * depth - 1)),
    "weak input": _block("input", 0.2, 1.0),
    "weak middle": _block("middle", 0.2, 1.0),
    "weak output": _block("output", 0.2, 1.0),
    "strong middle": _block("middle", 1.0, 0.2),
    "style transfer": _blocks(STYLE, "style transfer"),
    "composition": _blocks(COMPOSITION, "composition"),
    "strong style transfer": _blocks(_STRONG_STYLE, "strong style transfer"),
    "style and composition": _blocks(_BOTH, "style and composition"),
}


def site_weights(
    sites: tuple[Site, ...], weight: float, weight_type: str, layer_weights: Mapping[str, float] | None = None
) -> tuple[float, ...]:
    """λ of every site, in checkpoint order: weight × curve × the block's own weight."""
    names, own = layers(sites), layer_weights or {}
    if weight_type not in WEIGHT_TYPES:
        raise MismatchError(f"unknown weight type '{weight_type}'; choose one of: {', '.join(WEIGHT_TYPES)}.")
    unknown = [name for name in own if name not in names]
    if unknown:
        raise MismatchError(
            f"{model_family(sites)} has no attention block '{unknown[0]}'; it has: {', '.join(names)}. "
            "Connect the layer weights of this model."
        )
    curve, family = WEIGHT_TYPES[weight_type], model_family(sites)
    return tuple(
        weight
        * own.get(s.layer, 1.0)
        * curve(Place(s.layer, s.block, names.index(s.layer), len(names), family))
        for s in sites
    )


@dataclass(frozen=True)
class SigmaWindow:
    """The part of sampling in which a prompt acts: sigma_start >= sigma > sigma_end.

    Half open, so that [0, a] and [a, 1] together cover every step once; sigma_end 0 stands for 'to the very end'.
    closed: at sigma_end too, as in the de-facto pack.
    """

    sigma_start: float
    sigma_end: float
    closed: bool = False

    def __contains__(self, sigma: float) -> bool:
        if sigma > self.sigma_start:
            return False
        return sigma > self.sigma_end or self.sigma_end <= 0 or (self.closed and sigma == self.sigma_end)


@dataclass(frozen=True)
class Timing:
    """Two fractions of sampling between which a prompt acts. closed: at the end too, as in the de-facto pack."""

    start_at: float
    end_at: float
    closed: bool = False

    def window(self, percent_to_sigma: Callable[[float], float]) -> SigmaWindow:
        """In the sigmas of the model that samples."""
        start = float(percent_to_sigma(self.start_at))
        end = float(percent_to_sigma(self.end_at)) if self.closed or self.end_at < 1 else 0.0
        return SigmaWindow(start, end, self.closed)


def timing(start_at: float, end_at: float) -> Timing | None:
    """None for all of sampling, so that no sigma need be read. Raises MismatchError if it is no part of 0..1."""
    if not 0 <= start_at <= end_at <= 1:
        raise MismatchError(
            f"start_at {start_at} and end_at {end_at}: both lie in 0..1, and start_at may not exceed end_at."
        )
    return None if (start_at, end_at) == (0, 1) else Timing(start_at, end_at)
