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


def _curve(driver: Driver) -> dict[str, Any]:
    """A point at a third of sampling, dragged to half and down; then the start of the band."""
    left, top, width, height = driver.box(".image-prompt-curve svg")
    floor = height - 18

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (26 + x * (width / scale - 34)) * scale, top + (
            10 + (1 - y) * (floor / scale - 10)
        ) * scale

    scale = 1.0
    driver.drag(at(1 / 3, 0.8), at(0.5, 0.4))
    return {"weight_curve": "0.5:0.4"}


CASES = (Case("curve", "ImagePromptApply", ".image-prompt-curve svg", ".image-prompt-curve button", _curve),)
