"""Every widget drawn by the pack: its node, where it is, and a drag with what it must leave in the node's inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from page.driver import Driver


@dataclass(frozen=True)
class Case:
    """root: what is drawn. unfold: a button to press first, '' for none. drag: what a user does; it returns what each
    input must hold then. drags: how many steps that is for the page's undo."""

    name: str
    node: str
    root: str
    unfold: str
    drag: Callable[[Driver], dict[str, Any]]
    drags: int = 1


BARS = ".image-prompt-blocks svg"
WEIGHT, RANGE = ".image-prompt-curve svg.rail.weight", ".image-prompt-curve svg.rail.range"
PRESETS, SIMPLE_WEIGHT = ".image-prompt-presets .choices", ".image-prompt-presets svg.rail.weight"
CURVE, REGIONS = ".image-prompt-curve > svg", ".image-prompt-regions svg"


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


def bars_at(driver: Driver, bar: int, bars: int, weight: float) -> tuple[float, float]:
    """On the screen; weights from 0 to 2."""
    width, height = driver.view(BARS)
    return driver.at(BARS, 22 + (bar + 0.5) / bars * (width - 26), 16 + (1 - weight / 2) * (height - 60))


def _bars(driver: Driver) -> dict[str, Any]:
    """Over the second to the fourth of all 19 bars."""
    driver.drag(bars_at(driver, 1, 19, 0.5), bars_at(driver, 3, 19, 0.5))
    return {"input_2": 0.5, "input_4": 0.5, "input_5": 0.5}


def rail_at(driver: Driver, rail: str, fraction: float) -> tuple[float, float]:
    """On the screen, of a fraction of the rail's length."""
    width, height = driver.view(rail)
    return driver.at(rail, 6 + fraction * (width - 12), height / 2)


def _rails(driver: Driver) -> dict[str, Any]:
    """The weight to a quarter of its rail, of 0 to 2; both ends of the range inwards."""
    driver.drag(rail_at(driver, WEIGHT, 0.5), rail_at(driver, WEIGHT, 0.25))
    driver.drag(rail_at(driver, RANGE, 0), rail_at(driver, RANGE, 0.2))
    driver.drag(rail_at(driver, RANGE, 1), rail_at(driver, RANGE, 0.8))
    return {"weight": 0.5, "start_at": 0.2, "end_at": 0.8}


def _preset(driver: Driver) -> dict[str, Any]:
    """The second of four pictures."""
    left, top, width, height = driver.box(PRESETS)
    driver.page.mouse.click(left + width * 3 / 8, top + height / 2)
    driver.settle()
    return {"preset": "style"}


def _simple_weight(driver: Driver) -> dict[str, Any]:
    driver.drag(rail_at(driver, SIMPLE_WEIGHT, 0.35), rail_at(driver, SIMPLE_WEIGHT, 0.6))
    return {"weight": 1.2}


CASES = (
    Case("presets", "ImagePrompt", PRESETS, "", _preset),
    Case("weight", "ImagePrompt", SIMPLE_WEIGHT, "", _simple_weight),
    Case("bars", "ImagePromptLayerWeights", BARS, ".image-prompt-blocks button", _bars),
    Case("rails", "ImagePromptApply", RANGE, "", _rails, 3),
    Case("curve", "ImagePromptApply", CURVE, ".image-prompt-curve button", _curve),
    Case("regions", "ImagePromptRegions", REGIONS, "", _regions),
)


def _ease_in(driver: Driver) -> None:
    driver.page.locator(".image-prompt-curve select").select_option("ease_in")


def _point_removed(driver: Driver) -> None:
    _curve(driver)
    driver.page.mouse.dblclick(*curve_at(driver, 0.5, 0.4))


def _reset(driver: Driver) -> None:
    _bars(driver)
    driver.page.locator(".image-prompt-blocks .row button").click()


def _rising(driver: Driver) -> None:
    driver.page.locator(".image-prompt-blocks select").select_option("rising")


def _region_more(driver: Driver) -> None:
    driver.page.locator(".image-prompt-regions .chips button").get_by_text("+").click()


def _region_less(driver: Driver) -> None:
    driver.page.locator(".image-prompt-regions .chips button").get_by_text("−").click()


def _region_weight(driver: Driver) -> None:
    driver.page.locator(".image-prompt-regions input[type=number]").fill("0.3")
    driver.page.keyboard.press("Tab")


@dataclass(frozen=True)
class Click:
    """case: the name of the widget's. steps: of the page's undo, with drags in front of the click."""

    case: str
    act: Callable[[Driver], object]
    steps: int = 1


CLICKS = {
    "a preset's picture": Click("presets", _preset),
    "a curve from the menu": Click("curve", _ease_in),
    "a point removed": Click("curve", _point_removed, 2),
    "bars reset": Click("bars", _reset, 2),
    "a ramp of bars": Click("bars", _rising),
    "one region more": Click("regions", _region_more),
    "one region less": Click("regions", _region_less),
    "a region's weight": Click("regions", _region_weight),
}
