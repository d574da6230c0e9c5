"""The one-node graph: presets as pictures, and pictures that are dropped or pasted on it."""

import pytest
from page.cases import PRESETS
from page.driver import Driver

pytestmark = pytest.mark.page
FOLD = ".image-prompt-presets .line button"

GIVE = """async ([way, names, type, x, y]) => {
    const data = new DataTransfer();
    for (const name of names) {
        const canvas = Object.assign(document.createElement("canvas"), { width: 16, height: 16 });
        const context = canvas.getContext("2d");
        context.fillStyle = `hsl(${name.length * 40} 80% 50%)`;
        context.fillRect(0, 0, 16, 16);
        data.items.add(new File([await new Promise((done) => canvas.toBlob(done))], name, { type }));
    }
    const event = { bubbles: true, cancelable: true };
    if (way === "paste") return document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...event }));
    const at = document.elementFromPoint(x, y), place = { dataTransfer: data, clientX: x, clientY: y };
    for (const kind of ["dragenter", "dragover", "drop"]) {
        at.dispatchEvent(new DragEvent(kind, { ...place, ...event }));
        await new Promise((done) => setTimeout(done, 50));
    }
}"""
# Of all Load Images: the picture, the place, and the nodes that it goes to.
LOADERS = """() => graphNodes().filter((node) => node.type === "LoadImage").map((node) => ({
    picture: node.widgets.find(({ name }) => name === "image").value,
    place: [...node.pos],
    size: [...node.size],
    to: (node.outputs[0].links ?? []).map((link) => app.graph.links[link] ?? app.graph.getLink(link))
        .map((link) => app.graph.getNodeById(link.target_id).inputs[link.target_slot].name),
}))"""


def give(driver: Driver, *names: str, way: str = "drop", kind: str = "image/png"):
    driver.page.evaluate(GIVE, [way, [*names], kind, *driver.node_at()])
    driver.page.wait_for_timeout(1500)
    return driver.page.evaluate(LOADERS)


def select_first(driver: Driver) -> None:
    driver.page.evaluate("() => { app.canvas.deselectAll?.(); app.canvas.selectNode(graphNodes()[0]); }")


def pressed(driver: Driver) -> list[str]:
    return driver.page.locator(f"{PRESETS} button[aria-pressed=true]").evaluate_all(
        "(all) => all.map((button) => button.value)"
    )


def test_the_picture_of_the_menus_preset_is_marked(driver):
    driver.add("ImagePrompt")
    assert pressed(driver) == ["all"]
    driver.set("preset", "face")
    assert pressed(driver) == ["face"]
    shown = driver.page.locator(f"{PRESETS} img").evaluate_all("(all) => all.map((img) => img.naturalWidth)")
    assert len(shown) == 4
    assert all(shown)


def test_new_nodes_show_pictures_and_graphs_that_were_laid_out_without_them_do_not(driver):
    driver.add("ImagePrompt")
    driver.box(PRESETS)
    saved = driver.graph()
    driver.clear()
    driver.open(saved)
    driver.box(PRESETS)
    older = {**saved["nodes"][0], "properties": {}, "size": [300, 178]}
    driver.clear()
    driver.open({**saved, "nodes": [older]})
    driver.element(PRESETS).wait_for(state="hidden")
    driver.element(FOLD).click()
    driver.box(PRESETS)


def test_what_comes_by_a_link_is_not_the_drawings_to_change(driver):
    driver.add("ImagePrompt", 500)
    driver.add("VAEDecode", 100)
    driver.page.evaluate(
        "() => { const [node, origin] = graphNodes(); origin.outputs[0].type = '*';"
        " for (const name of ['preset', 'weight']) origin.connect(0, node,"
        " node.inputs.findIndex((input) => input.widget?.name === name)); }"
    )
    linked = driver.page.locator(".image-prompt-presets svg.rail.linked")
    linked.wait_for(state="attached")
    assert driver.page.locator(f"{PRESETS} button:disabled").count() == 4
    driver.page.evaluate(
        "() => { const [node] = graphNodes(); node.inputs.forEach((_, n) => node.disconnectInput(n)); }"
    )
    linked.wait_for(state="detached")
    assert driver.page.locator(f"{PRESETS} button:disabled").count() == 0


def test_a_dropped_picture_gets_a_load_image_on_the_left_in_one_step_of_undo(driver):
    driver.add("ImagePrompt", 500)
    (loader,) = give(driver, "a reference.png")
    assert loader["picture"] == "a reference.png"
    assert loader["to"] == ["image"]
    assert loader["place"][0] + loader["size"][0] < 500
    driver.undo()
    assert driver.count() == 1
    driver.redo()
    driver.page.wait_for_timeout(800)
    (loader,) = driver.page.evaluate(LOADERS)
    assert (loader["picture"], loader["to"]) == ("a reference.png", ["image"])


def test_a_new_load_image_stands_below_what_is_there(driver):
    driver.add("ImagePrompt", 500)
    driver.add("CheckpointLoaderSimple", 200)
    (loader,) = give(driver, "below.png")
    bottom = driver.page.evaluate("() => graphNodes()[1].pos[1] + graphNodes()[1].size[1]")
    assert loader["place"][1] > bottom


@pytest.mark.parametrize("between", [None, "ImageScaleBy"])
def test_the_load_image_that_is_connected_takes_the_picture(driver, between):
    driver.add("ImagePrompt", 500)
    driver.add("LoadImage", 0, 300)
    if between:
        driver.add(between, 300, 300)
    driver.page.evaluate(
        "() => { const [node, ...chain] = graphNodes(); const to = (at, next) => chain[at].connect(0, next,"
        " next.inputs.findIndex((input) => input.name === 'image'));"
        " if (chain[1]) { to(0, chain[1]); to(1, node); } else to(0, node);"
        " chain[0].setSize([280, 400]); }"  # high enough: where the page makes it higher for the preview, that is a step too
    )
    driver.page.mouse.click(1400, 600)
    driver.settle()
    before = driver.page.evaluate(LOADERS)[0]["picture"]
    (loader,) = give(driver, "filled in.png")
    assert loader["picture"] == "filled in.png"
    driver.undo()
    (loader,) = driver.page.evaluate(LOADERS)
    assert loader["picture"] == before


def test_a_pasted_picture_goes_to_the_node_that_is_selected(driver):
    driver.add("ImagePrompt", 500)
    select_first(driver)
    (loader,) = give(driver, "image.png", way="paste")
    assert loader["picture"].startswith("pasted/image")
    assert loader["to"] == ["image"]


def test_of_several_pictures_one_is_taken_and_the_page_says_so(driver):
    driver.add("ImagePrompt", 500)
    (loader,) = give(driver, "one.png", "second.png")
    assert loader["picture"] == "one.png"
    assert any("2 pictures came, and one.png was taken" in toast for toast in driver.toasts())


def test_other_files_are_the_pages_own(driver):
    driver.add("ImagePrompt", 500)
    takes = (
        "(type) => { const dataTransfer = new DataTransfer(); dataTransfer.items.add(new File(['{}'], 'a', { type }));"
        " return graphNodes()[0].onDragOver({ dataTransfer }); }"
    )
    assert driver.page.evaluate(takes, "image/webp") is True
    assert driver.page.evaluate(takes, "application/json") is False
