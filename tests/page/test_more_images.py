"""Encode takes as many images as are connected: a further input shows when the one before it is taken."""

import pytest
from page.driver import Driver

pytestmark = pytest.mark.page
CONNECT = """(n) => {
    const [encode, ...loaders] = graphNodes();
    const name = n === 1 ? "image" : `image_${n}`;
    loaders[n - 1].connect(0, encode, encode.inputs.findIndex((input) => input.name === name));
}"""
# Of the nth Encode: inputs for pictures in order, and which Load Image each has, by number.
PICTURES = """(n) => {
    const nodes = graphNodes(), encode = nodes.filter((node) => node.type === "ImagePromptEncode")[n];
    const loaders = nodes.filter((node) => node.type === "LoadImage").map((node) => node.id);
    const from = (link) => (app.graph.getLink?.(link) ?? app.graph.links[link]).origin_id;
    const pictures = encode.inputs.filter(({ name }) => /^image(_[2-6])?$/.test(name));
    return Object.fromEntries(pictures.map(({ name, link }) => [name, link == null ? 0 : loaders.indexOf(from(link)) + 1]));
}"""
QUEUED = """async () => {
    const nodes = graphNodes(), loaders = nodes.filter((node) => node.type === "LoadImage").map((node) => String(node.id));
    const { inputs } = (await app.graphToPrompt()).output[nodes[0].id];
    const named = Object.entries(inputs).filter(([name]) => /^image(_[2-6])?$/.test(name));
    return Object.fromEntries(named.map(([name, [id]]) => [name, loaders.indexOf(id) + 1]));
}"""


def look(driver: Driver) -> None:
    """The page sees what has changed, for its undo."""
    driver.page.mouse.click(1400, 1000)
    driver.settle()


def with_pictures(driver: Driver, count: int) -> None:
    driver.add("ImagePromptEncode", 500)
    for n in range(count):
        driver.add("LoadImage", 100, 40 + 330 * n)
    for n in range(1, count + 1):
        driver.page.evaluate(CONNECT, n)
        look(driver)


def pictures(driver: Driver, encode: int = 0) -> dict[str, int]:
    return driver.page.evaluate(PICTURES, encode)


def test_a_further_input_shows_when_one_is_connected(driver):
    driver.add("ImagePromptEncode", 500)
    assert pictures(driver) == {"image": 0}
    driver.clear()
    with_pictures(driver, 2)
    assert pictures(driver) == {"image": 1, "image_2": 2, "image_3": 0}


def test_the_queued_graph_has_the_connected_images_only(driver):
    with_pictures(driver, 2)
    assert driver.page.evaluate(QUEUED) == {"image": 1, "image_2": 2}


def test_they_are_saved_and_opened_again(driver):
    with_pictures(driver, 2)
    driver.set("weight_2", 0.4)
    saved = driver.graph()
    driver.clear()
    driver.open(saved)
    assert pictures(driver) == {"image": 1, "image_2": 2, "image_3": 0}
    assert driver.page.evaluate(QUEUED) == {"image": 1, "image_2": 2}
    assert driver.values()["weight_2"] == 0.4


def test_a_copy_has_inputs_of_its_own(driver):
    with_pictures(driver, 2)
    driver.copy()
    assert pictures(driver, 1)["image"] == 0
    assert pictures(driver) == {"image": 1, "image_2": 2, "image_3": 0}


def test_undo_takes_the_connection_and_its_input_back(driver):
    with_pictures(driver, 2)
    driver.undo()
    assert pictures(driver) == {"image": 1, "image_2": 0}
    assert driver.page.evaluate(QUEUED) == {"image": 1}


def test_an_input_goes_with_the_last_connection(driver):
    with_pictures(driver, 2)
    driver.page.evaluate(
        "() => { const [encode] = graphNodes();"
        " encode.disconnectInput(encode.inputs.findIndex(({ name }) => name === 'image_2')); }"
    )
    driver.settle()
    assert pictures(driver) == {"image": 1, "image_2": 0}
