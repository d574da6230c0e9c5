"""Layer Weights as bars: the blocks of the model that is connected, and presets that the node accepts."""

import pytest
from page.cases import BARS, bars_at
from page.driver import Driver
from page.server import SDXL

pytestmark = pytest.mark.page
UNFOLD, CAPTION, MENU = (f".image-prompt-blocks {part}" for part in ("button", ".gap", "select"))


@pytest.fixture
def bars(driver) -> Driver:
    """Behind a LoRA loader and the loader of an SDXL checkpoint."""
    driver.add("ImagePromptLayerWeights")
    driver.add("CheckpointLoaderSimple", 600)
    driver.add("LoraLoaderModelOnly", 600, 200)
    driver.set("ckpt_name", SDXL, 1)
    driver.page.evaluate("() => { const [w, m, l] = graphNodes(); m.connect(0, l, 0); l.connect(0, w, 0); }")
    driver.element(UNFOLD).click()
    driver.page.locator(CAPTION, has_text="SDXL: 11 blocks").wait_for()
    return driver


def test_only_the_blocks_of_the_model_have_bars(bars):
    assert bars.page.locator(f"{BARS} .bar").count() == 11
    names = bars.page.locator(f"{BARS} .name").all_text_contents()
    assert (names[0], names[4], names[-1]) == ("input 4", "middle", "output 5")
    bars.drag(bars_at(bars, 10, 11, 1.0), bars_at(bars, 10, 11, 0.5))
    assert bars.values()["output_5"] == pytest.approx(0.5, abs=0.06)


def test_presets_leave_blocks_that_the_model_lacks_at_1(bars):
    bars.set("output_9", 0.3)
    bars.page.locator(MENU).select_option("style")
    weights = bars.values()
    assert {name for name, weight in weights.items() if weight == 0} == {
        "input_4",
        "input_5",
        "input_7",
        "input_8",
        "middle",
        *(f"output_{n}" for n in (0, 2, 3, 4, 5)),
    }
    assert weights["output_1"] == weights["output_9"] == 1
    bars.page.locator(".image-prompt-blocks .row button").click()
    assert {*bars.values().values()} - {""} == {1}


def test_what_the_node_says_when_it_has_run_is_drawn(driver):
    driver.add("ImagePromptLayerWeights")
    assert driver.page.locator(f"{BARS} .bar").count() == 19
    said = {"blocks": [{"family": "Toy", "blocks": ["input 1", "middle"], "style": {}, "composition": {}}]}
    driver.page.evaluate("(said) => graphNodes()[0].onExecuted(said)", said)
    assert driver.page.locator(f"{BARS} .bar").count() == 2
    options = driver.page.locator(f"{MENU} option").evaluate_all("(all) => all.map((option) => option.value)")
    assert "style" not in options
    assert "rising" in options


def test_blocks_of_a_transformer_are_weighed_in_the_text(driver):
    driver.add("ImagePromptLayerWeights")
    driver.element(UNFOLD).click()
    blocks = [f"{stage} {n}" for stage, count in (("double", 4), ("single", 4)) for n in range(count)]
    said = {"blocks": [{"family": "Toy", "blocks": blocks, "style": {}, "composition": {}}]}
    driver.page.evaluate("(said) => graphNodes()[0].onExecuted(said)", said)
    driver.drag(bars_at(driver, 1, 8, 0.5), bars_at(driver, 3, 8, 0.5))
    assert driver.values()["blocks"] == "double 1-3: 0.5"
    driver.set("blocks", "all: 0, single 2: 1")
    heights = driver.page.locator(f"{BARS} .bar").evaluate_all(
        "(all) => all.map((bar) => Number(bar.getAttribute('height')))"
    )
    assert [n for n, height in enumerate(heights) if height > 5] == [6]
