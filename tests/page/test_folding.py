"""Drawings fold; what a user folds or unfolds stays so, and a node does not grow by being opened again."""

import pytest
from page.cases import CASES

pytestmark = pytest.mark.page
unfolded = pytest.mark.parametrize(
    "case", [case for case in CASES if case.unfold], ids=lambda case: case.name
)


@unfolded
def test_a_graph_opens_as_it_was_saved(driver, case):
    driver.add(case.node)
    driver.element(case.unfold).click()
    driver.box(case.root)
    sizes = []
    for _ in range(2):
        saved = driver.graph()
        driver.clear()
        driver.open(saved)
        driver.box(case.root)
        sizes.append(driver.page.evaluate("() => [...graphNodes()[0].size]"))
    assert sizes[1] == pytest.approx(sizes[0], abs=2)
    driver.element(case.unfold).click()
    driver.element(case.root).wait_for(state="hidden")
    saved = driver.graph()
    driver.clear()
    driver.open(saved)
    driver.element(case.root).wait_for(state="hidden")
