"""What the pack draws on its nodes is seen, edits the node's own inputs, and lives through what a page does to a graph."""

import pytest
from page.cases import CASES
from page.driver import Driver

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
pytestmark = pytest.mark.page


def drawn(driver: Driver, case) -> None:
    driver.add(case.node)
    if case.unfold:
        driver.element(case.unfold).click()
        driver.settle()


def holds(driver: Driver, expected, index=0) -> None:
    values = driver.values(index)
    for name, value in expected.items():
        assert close(values[name], value), f"{name} is {values[name]!r}, not {value!r}"


def close(found, expected) -> bool:
    """Equal; numbers, in texts too, within a pixel of dragging."""
    if isinstance(expected, float):
        return abs(found - expected) < 0.03
    if isinstance(expected, str):
        return parts(found)[0] == parts(expected)[0] and all(
            abs(a - b) < 0.03 for a, b in zip(parts(found)[1], parts(expected)[1], strict=True)
        )
    return found == expected


def parts(text: str) -> tuple[str, list[float]]:
    import re

    number = re.compile(r"-?\d+(?:\.\d+)?")
    return number.sub("#", text), [float(match) for match in number.findall(text)]


@every_case
def test_it_is_drawn_inside_its_node(driver, case):
    drawn(driver, case)
    _, _, width, height = driver.box(case.root)
    assert width > 100
    assert height > 15


@every_case
def test_the_queued_graph_has_what_was_dragged(driver, case):
    drawn(driver, case)
    before = driver.values()
    expected = case.drag(driver)
    holds(driver, expected)
    untouched = {name: value for name, value in before.items() if name not in expected}
    assert untouched.items() <= driver.values().items()


@every_case
def test_it_is_saved_and_opened_again(driver, case):
    drawn(driver, case)
    expected = case.drag(driver)
    saved = driver.graph()
    driver.clear()
    driver.open(saved)
    holds(driver, expected)
    driver.box(case.root)


@every_case
def test_a_copy_has_values_of_its_own(driver, case):
    drawn(driver, case)
    expected = case.drag(driver)
    driver.copy()
    assert driver.count() == 2
    holds(driver, expected, index=1)
    for name in expected:
        driver.set(
            name,
            driver.page.evaluate(
                "(n) => LiteGraph.createNode(app.graph._nodes[0].type).widgets"
                ".find((w) => w.name === n).value",
                name,
            ),
            index=0,
        )
    holds(driver, expected, index=1)


@every_case
def test_undo_takes_the_drag_back(driver, case):
    drawn(driver, case)
    before = driver.values()
    expected = case.drag(driver)
    holds(driver, expected)
    driver.undo()
    assert driver.values() == before
