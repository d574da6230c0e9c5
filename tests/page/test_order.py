"""Where people look: templates in their order, colours of links, folders of the menu, words of the search."""

import pytest
from bootstrap import ROOT

pytestmark = pytest.mark.page
OURS = ("IMAGE_PROMPT", "IPADAPTER", "LAYER_WEIGHTS", "FACES")


def test_templates_are_listed_by_their_numbers(driver):
    listed = driver.page.evaluate(
        "async () => (await (await import('/scripts/api.js')).api.getWorkflowTemplates())['image-prompt']"
    )
    assert listed == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert listed[0].startswith("01 ")


def test_links_of_our_types_have_colours_of_their_own(driver):
    canvas = driver.page.evaluate("(types) => types.map((t) => LGraphCanvas.link_type_colors[t])", OURS)
    style = driver.page.evaluate(
        "(types) => { const style = getComputedStyle(document.documentElement);"
        " return types.map((t) => style.getPropertyValue(`--color-datatype-${t}`).trim()); }",
        OURS,
    )
    assert canvas == style
    assert len({*canvas, None}) == len(OURS) + 1


def test_the_menu_has_folders(driver):
    category = "() => Object.values(LiteGraph.registered_node_types).map((type) => type.category)"
    found = {c for c in driver.page.evaluate(category) if (c or "").startswith("image prompt")}
    assert found == {"image prompt", *(f"image prompt/{f}" for f in ("faces", "training", "tools"))} | (
        {"image prompt/older"} & found
    )


@pytest.mark.parametrize("word", ["style", "face", "reference"])
def test_the_one_node_graph_is_found_by_what_people_want(driver, word):
    words = driver.page.evaluate(
        "() => LiteGraph.registered_node_types.ImagePrompt.nodeData.search_aliases ?? null"
    )
    if words is None:
        pytest.skip("this page does not search by other words")
    assert any(word in each for each in words)
