"""The Regions node: what is painted, and slots that grow and shrink with the regions."""

import pytest
from page.cases import REGIONS, regions_at
from page.driver import Driver

pytestmark = pytest.mark.page
TOOL = ".image-prompt-regions .row button"


def press(driver: Driver, name: str) -> None:
    driver.page.locator(TOOL, has_text=name).first.click()
    driver.settle()


def slots(driver: Driver, side: str, stem: str) -> list[str]:
    found = driver.page.evaluate("(side) => graphNodes()[0][side].map((slot) => slot.name)", side)
    return [name for name in found if name.startswith(stem)]


def test_strokes_are_painted_and_erased_in_the_chosen_region(driver):
    driver.add("ImagePromptRegions")
    driver.set("regions", "box 0,0,0.5,1; weight 1")
    press(driver, "2")
    press(driver, "brush")
    driver.drag(regions_at(driver, 0.6, 0.5), regions_at(driver, 0.9, 0.5))
    press(driver, "eraser")
    driver.drag(regions_at(driver, 0.7, 0.4), regions_at(driver, 0.7, 0.6))
    first, second = driver.values()["regions"].split("; ")
    assert first == "box 0,0,0.5,1"
    words = second.split()
    assert words[:2] == ["stroke", "0.15"]
    assert [float(n) for n in words[2].split(",")] == pytest.approx([0.6, 0.5], abs=0.02)
    assert [float(n) for n in words[3].split(",")] == pytest.approx([0.9, 0.5], abs=0.02)
    assert words[4:6] == ["erase", "0.15"], "a straight way is its two ends"


def test_a_new_region_gets_a_box_and_slots_of_its_own(driver):
    driver.add("ImagePromptRegions")
    assert slots(driver, "inputs", "image_prompt_") == ["image_prompt_1", "image_prompt_2"]
    assert slots(driver, "outputs", "mask_") == ["mask_1", "mask_2"]
    press(driver, "+")
    assert slots(driver, "inputs", "image_prompt_")[-1] == "image_prompt_3"
    assert slots(driver, "outputs", "mask_")[-1] == "mask_3"
    driver.set("regions", "weight 1")
    assert slots(driver, "inputs", "image_prompt_") == ["image_prompt_1"]
    driver.drag(regions_at(driver, 0.25, 0.25), regions_at(driver, 0.75, 0.5))
    assert driver.values()["regions"].startswith("box 0.2")
    driver.page.mouse.dblclick(*regions_at(driver, 0.5, 0.4))
    driver.settle()
    assert driver.values()["regions"] == "weight 1"


CONNECT = """(regions) => {
    const [node, ...loaders] = graphNodes();
    for (const n of regions) {
        const slot = node.inputs.findIndex((input) => input.name === `image_prompt_${n}`);
        loaders[n - 1].connect(0, node, slot);
    }
}"""
LINKS = """async () => {
    const [node, ...loaders] = graphNodes();
    const { inputs } = (await app.graphToPrompt()).output[node.id];
    const ids = loaders.map((loader) => String(loader.id));
    return Object.fromEntries(Object.entries(inputs).filter(([, value]) => Array.isArray(value))
        .map(([name, [id]]) => [name, ids.indexOf(id) + 1]));
}"""


def with_three_pictures(driver: Driver) -> None:
    driver.add("ImagePromptRegions")
    for n in range(3):
        driver.add("LoadImage", 600, 40 + 330 * n)
    driver.set("regions", "box 0,0,0.3,1; box 0.3,0,0.4,1; box 0.7,0,0.3,1")
    driver.page.evaluate(CONNECT, [1, 2, 3])
    driver.settle()


def test_what_is_connected_is_opened_again(driver):
    with_three_pictures(driver)
    assert driver.page.evaluate(LINKS) == {"image_prompt_1": 1, "image_prompt_2": 2, "image_prompt_3": 3}
    saved = driver.graph()
    driver.clear()
    driver.open(saved)
    assert driver.page.evaluate(LINKS) == {"image_prompt_1": 1, "image_prompt_2": 2, "image_prompt_3": 3}
    assert len(slots(driver, "inputs", "image_prompt_")) == 3


def test_a_removed_region_takes_its_picture_along(driver):
    with_three_pictures(driver)
    press(driver, "2")
    press(driver, "−")
    assert driver.values()["regions"] == "box 0,0,0.3,1; box 0.7,0,0.3,1"
    assert driver.page.evaluate(LINKS) == {"image_prompt_1": 1, "image_prompt_2": 3}
    assert len(slots(driver, "inputs", "image_prompt_")) == 2


def test_a_text_that_is_none_stays_as_it_is(driver):
    driver.add("ImagePromptRegions")
    driver.set("regions", "circle 1")
    driver.element(f"{REGIONS} text.wrong").wait_for()
    driver.drag(regions_at(driver, 0.2, 0.2), regions_at(driver, 0.5, 0.5))
    assert driver.values()["regions"] == "circle 1"
