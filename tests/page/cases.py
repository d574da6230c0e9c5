"""Every widget drawn by the pack: its node, where it is, and a drag with what it must leave in the node's inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from page.driver import Driver


@dataclass(frozen=True)
class Case:
    """root: what is drawn. unfold: a button to press first, '' for none. drag: what a user does; it returns what each
    input must hold then."""

    name: str
    node: str
    root: str
    unfold: str
    drag: Callable[[Driver], dict[str, Any]]


CURVE, REGIONS = ".image-prompt-curve svg", ".image-prompt-regions svg"


def curve_at(driver: Driver, fraction: float, factor: float) -> tuple[float, float]:
    """On the screen; factors from 0 to 1."""
    width, height = driver.view(CURVE)
    return driver.at(CURVE, 26 + fraction * (width - 34), 10 + (1 - factor) * (height - 28))


def regions_at(driver: Driver, x: float, y: float) -> tuple[float, float]:
    """On the screen, of fractions of the picture."""
    width, height = driver.view(REGIONS)
    return driver.at(REGIONS, x * width, y * height)


def _curve(driver: Driver) -> dict[str, Any]:
    """A point at a third of sampling, dragged to half and down."""
    driver.drag(curve_at(driver, 1 / 3, 0.8), curve_at(driver, 0.5, 0.4))
    return {"weight_curve": "0.5:0.4"}


def _regions(driver: Driver) -> dict[str, Any]:
    """The corner of the first of two halves."""
    driver.drag(regions_at(driver, 0.5, 1), regions_at(driver, 0.3, 0.75))
    return {"regions": "box 0,0,0.3,0.75; box 0.5,0,0.5,1"}


CASES = (
    Case("curve", "ImagePromptApply", CURVE, ".image-prompt-curve button", _curve),
    Case("regions", "ImagePromptRegions", REGIONS, "", _regions),
)
