"""Subgraph blueprints in the page: found by what people want, put down as one node, opened, and taken by the server."""

import json
import urllib.error
import urllib.request

import pytest
from helpers.blueprint_files import BLUEPRINTS, document, subgraph

pytestmark = pytest.mark.page
by_name = pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
# inputs whose files this base directory lacks
FILES = {"ckpt_name", "ipadapter_file", "clip_name", "control_net_name", "face_model", "image"}

AROUND = """(id) => {
    const main = app.graph.getNodeById(id);
    const made = (kind) => { const node = LiteGraph.createNode(kind); app.graph.add(node); return node; };
    const [checkpoint, sampler, latent, decode, save] =
        ["CheckpointLoaderSimple", "KSampler", "EmptyLatentImage", "VAEDecode", "SaveImage"].map(made);
    const texts = ["positive", "negative"].map(() => made("CLIPTextEncode"));
    const slot = (node, name) => node.inputs.findIndex((input) => input.name === name);
    const output = (node, name) => node.outputs.findIndex((each) => each.name === name);
    texts.forEach((text) => checkpoint.connect(1, text, slot(text, "clip")));
    main.inputs.forEach((input, n) => {
        if (input.type === "MODEL") checkpoint.connect(0, main, n);
        if (input.type === "IMAGE") {
            const image = made("LoadImage");
            image.widgets.find((widget) => widget.name === "image").value = "example.png";
            image.connect(0, main, n);
        }
        if (input.type === "CONDITIONING") texts[input.name === "negative" ? 1 : 0].connect(0, main, n);
    });
    main.connect(output(main, "model"), sampler, slot(sampler, "model"));
    ["positive", "negative"].forEach((name, n) => {
        const own = output(main, name);
        (own < 0 ? texts[n] : main).connect(own < 0 ? 0 : own, sampler, slot(sampler, name));
    });
    latent.connect(0, sampler, slot(sampler, "latent_image"));
    sampler.connect(0, decode, slot(decode, "samples"));
    checkpoint.connect(2, decode, slot(decode, "vae"));
    decode.connect(0, save, slot(save, "images"));
}"""


@pytest.fixture(autouse=True, scope="module")
def taken(address):
    try:
        urllib.request.urlopen(f"{address}/global_subgraphs").close()
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        pytest.skip("this host takes no blueprints from packs: ComfyUI 0.8 and newer do")


@pytest.fixture
def placed(driver, path):
    """The blueprint's node, as the page puts it down from its search."""
    search(driver, path.stem.split(" (")[0])
    driver.page.keyboard.press("Enter")
    driver.page.wait_for_timeout(800)
    driver.page.mouse.click(1200, 900)
    driver.settle()
    found = driver.page.evaluate("() => graphNodes().map((node) => [node.id, node.title])")
    assert [title for _, title in found] == [path.stem]
    return found[0][0]


def search(driver, words):
    driver.page.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    driver.page.wait_for_timeout(800)
    driver.page.keyboard.type(words, delay=5)
    driver.page.wait_for_timeout(800)


@pytest.mark.parametrize("words", ["style from", "face from", "two regions", "controlnet", "mask and timing"])
def test_they_are_found_by_what_people_want(driver, words):
    """By their names: the page takes other words from the host's list alone, which has none of a pack's."""
    search(driver, words)
    wanted = [path.stem for path in BLUEPRINTS if words in path.stem.lower()]
    assert wanted
    assert [stem for stem in wanted if not driver.page.get_by_text(stem).count()] == []
    driver.page.keyboard.press("Escape")
    driver.settle()


@by_name
def test_it_is_one_node_with_what_it_promises(driver, path, placed):
    slots = driver.page.evaluate(
        "(id) => { const node = app.graph.getNodeById(id); return [node.inputs.map((slot) => slot.name),"
        " node.outputs.map((slot) => slot.name), node.widgets.map((widget) => widget.name)]; }",
        placed,
    )
    inner = subgraph(path)
    (outer,) = document(path)["nodes"]
    assert slots[0] == [slot["name"] for slot in inner["inputs"]]
    assert slots[1] == [slot["name"] for slot in inner["outputs"]]
    assert slots[2] == [slot["name"] for slot in outer["inputs"] if "widget" in slot]


@by_name
def test_the_queued_graph_has_its_nodes_and_values(driver, path, placed):
    output = driver.page.evaluate("async () => (await app.graphToPrompt()).output")
    found = {int(key.rsplit(":", 1)[-1]): call for key, call in output.items()}
    nodes = {node["id"]: node for node in subgraph(path)["nodes"]}
    assert {number: call["class_type"] for number, call in found.items()} == {
        number: node["type"] for number, node in nodes.items()
    }
    for number, node in nodes.items():
        values = [value for value in found[number]["inputs"].values() if not isinstance(value, list)]
        assert sorted(map(repr, values)) == sorted(map(repr, map(plain, node["widgets_values"])))


def plain(value):
    """As JavaScript writes it: 1.0 is 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@by_name
def test_the_server_takes_it(driver, path, placed, address):
    """In a graph with loaders and a sampler: it may miss files of models and pictures, and nothing else."""
    driver.page.evaluate(AROUND, placed)
    driver.settle()
    prompt = driver.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert sum(call["class_type"] == "KSampler" for call in prompt.values()) == 1
    for node in errors(address, prompt).values():
        for error in node["errors"]:
            assert error["extra_info"]["input_name"] in FILES, error


def errors(address, prompt):
    """What the server has against a prompt, by node; {} where it takes it. It is taken out of the queue again."""
    request = urllib.request.Request(f"{address}/prompt", json.dumps({"prompt": prompt}).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["node_errors"]
    except urllib.error.HTTPError as refused:
        found = json.load(refused)["node_errors"]
        assert found, "refused as a whole"
    for path, body in (("/queue", {"clear": True}), ("/interrupt", {})):
        urllib.request.urlopen(
            urllib.request.Request(address + path, json.dumps(body).encode()), timeout=60
        ).close()
    return found


@by_name
def test_it_opens_into_plain_nodes(driver, path, placed):
    driver.page.evaluate("(id) => app.graph.unpackSubgraph(app.graph.getNodeById(id))", placed)
    driver.settle()
    types = driver.page.evaluate("() => graphNodes().map((node) => node.type).sort()")
    assert types == sorted(node["type"] for node in subgraph(path)["nodes"])
