"""What the pack draws on its nodes is seen, edits the node's own inputs, and lives through what a page does to a graph."""

import re

import pytest
from page.cases import CASES, CLICKS
from page.driver import Driver

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
pytestmark = pytest.mark.page
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


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
        return abs(found - expected) < 0.06
    if not isinstance(expected, str):
        return found == expected
    (words, numbers), (expected_words, expected_numbers) = parts(found), parts(expected)
    pairs = zip(numbers, expected_numbers, strict=words == expected_words)
    return words == expected_words and all(abs(a - b) < 0.03 for a, b in pairs)


def parts(text: str) -> tuple[str, list[float]]:
    """A text without its numbers, and these."""
    return NUMBER.sub("#", text), [float(match) for match in NUMBER.findall(text)]


@every_case
def test_it_is_drawn_inside_its_node(driver, case):
    drawn(driver, case)
    _, _, width, height = driver.box(case.root)
    assert width > 70
    assert height > 11


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
    before = driver.values()
    expected = case.drag(driver)
    driver.copy()
    assert driver.count() == 2
    holds(driver, expected, index=1)
    for name, value in before.items():
        driver.set(name, value)
    holds(driver, expected, index=1)


@every_case
def test_undo_takes_the_drag_back(driver, case):
    drawn(driver, case)
    before = driver.values()
    expected = case.drag(driver)
    holds(driver, expected)
    for _ in range(case.drags):
        driver.undo()
    assert driver.values() == before


@pytest.mark.parametrize("click", CLICKS.values(), ids=CLICKS)
def test_what_a_click_changes_is_a_step_of_the_pages_undo(driver, click):
    drawn(driver, next(case for case in CASES if case.name == click.case))
    before = driver.values()
    click.act(driver)
    driver.settle()
    after = driver.values()
    for _ in range(click.steps):
        driver.undo()
    assert driver.values() == before
    for _ in range(click.steps):
        driver.redo()
    assert driver.values() == after
