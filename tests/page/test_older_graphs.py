"""Graphs of older packs in the page: forms whose widgets moved, and the Xlabs Sampler's offer of its replacement."""

import pytest

pytestmark = pytest.mark.page


def node(number, kind, values, inputs=(), outputs=()):
    return {
        "id": number, "type": kind, "pos": [number * 360, 0], "size": [320, 160], "mode": 0, "flags": {}, "order": number,
        "inputs": [{"name": name, "type": type_, "link": link} for name, type_, link in inputs],
        "outputs": [{"name": type_, "type": type_, "links": links} for type_, links in outputs],
        "properties": {}, "widgets_values": values,
    }  # fmt: skip


def graph(nodes, links=()):
    last = max(each["id"] for each in nodes)
    return {
        "nodes": nodes,
        "links": [*links],
        "version": 0.4,
        "last_node_id": last,
        "last_link_id": len(links),
    }


def prompt(driver):
    return driver.page.evaluate("async () => (await app.graphToPrompt()).output")


FORMS = [
    (
        "IPAdapterFluxLoader",
        ["ip-adapter.bin", "cpu"],
        {"provider": "cpu", "ipadapter": "ip-adapter.bin"},
        "",
    ),
    ("IPAdapterSD3Loader", ["a.bin", "google/siglip-so400m-patch14-384", "mps"], {"provider": "mps"}, ""),
    (
        "AV_IPAdapter",
        ["None", "None", 0.83, 0.2, 0.1, 0.9, True],
        {"weight": 0.83, "noise": 0.2, "start_at": 0.1, "end_at": 0.9, "enabled": True},
        "ImagePromptLegacyArtVenture",
    ),
    (
        "AV_IPAdapter",
        ["None", "None", 0.83, 0.1, 0.9, "style transfer", True],
        {"start_at": 0.1, "end_at": 0.9, "weight_type": "style transfer", "enabled": True},
        "",
    ),
    ("IPAdapterAdvancedV2", [0.4, "linear", "concat", 0, 1], {"weight": 0.4, "embeds_scaling": "V only"}, ""),
    ("ApplyFluxIPAdapter", [2.5], {"ip_scale": 2.5}, ""),
]


@pytest.mark.parametrize(("kind", "values", "expected", "here"), FORMS)
def test_values_of_older_forms_stand_on_their_widgets(driver, kind, values, expected, here):
    driver.open(graph([node(1, kind, values)]))
    driver.settle()
    made = prompt(driver)["1"]
    assert made["class_type"] == (here or kind)
    assert made["inputs"] == made["inputs"] | expected


def sampler(values=(7, "fixed", 25, 1, 3.5, 0)):
    inputs = [
        ("model", "MODEL", None), ("conditioning", "CONDITIONING", 1), ("neg_conditioning", "CONDITIONING", 2),
        ("latent_image", "LATENT", 3),
    ]  # fmt: skip
    nodes = [
        node(1, "CLIPTextEncodeFlux", ["a", "b", 4.0], outputs=[("CONDITIONING", [1])]),
        node(2, "CLIPTextEncodeFlux", ["", "", 4.0], outputs=[("CONDITIONING", [2])]),
        node(3, "EmptyLatentImage", [832, 1216, 1], outputs=[("LATENT", [3])]),
        node(4, "XlabsSampler", [*values], inputs, [("LATENT", [4])]),
        node(5, "VAEDecode", [], [("samples", "LATENT", 4), ("vae", "VAE", None)], [("IMAGE", [])]),
    ]
    links = [
        [1, 1, 0, 4, 1, "CONDITIONING"], [2, 2, 0, 4, 2, "CONDITIONING"], [3, 3, 0, 4, 3, "LATENT"],
        [4, 4, 0, 5, 0, "LATENT"],
    ]  # fmt: skip
    return graph(nodes, links)


def test_the_xlabs_sampler_is_replaced_by_comfyuis_nodes(driver):
    driver.open(sampler())
    driver.settle()
    driver.page.evaluate(
        "() => app.graph._nodes.find((n) => n.type === 'XlabsSampler').widgets.find((w) => w.type === 'button').callback()"
    )
    driver.settle()
    made = prompt(driver)
    first, second = (each for each in made.values() if each["class_type"] == "KSamplerAdvanced")
    assert [first["inputs"][name] for name in ("cfg", "start_at_step", "end_at_step")] == [1, 0, 1]
    assert [second["inputs"][name] for name in ("cfg", "start_at_step", "steps")] == [3.5, 1, 25]
    assert (first["inputs"]["noise_seed"], first["inputs"]["add_noise"], second["inputs"]["add_noise"]) == (
        7,
        "enable",
        "disable",
    )
    assert (second["inputs"]["positive"], second["inputs"]["negative"]) == (["1", 0], ["2", 0])
    assert made["5"]["inputs"]["samples"][0] == next(n for n, each in made.items() if each is second)
    kinds = [each["type"] for each in driver.graph()["nodes"]]
    assert "XlabsSampler" not in kinds
    notes = [each["widgets_values"][0] for each in driver.graph()["nodes"] if "Note" in each["type"]]
    assert "pictures differ" in notes[0]


def test_a_button_on_the_missing_node_offers_it(driver):
    driver.open(sampler())
    driver.settle()
    names = driver.page.evaluate(
        "() => app.graph._nodes.find((n) => n.type === 'XlabsSampler').widgets.map((w) => w.name)"
    )
    assert names[-1] == "Replace by ComfyUI's KSampler"
    (saved,) = [each for each in driver.graph()["nodes"] if each["type"] == "XlabsSampler"]
    assert saved["widgets_values"] == [7, "fixed", 25, 1, 3.5, 0]  # the file stays as it was


PHASES = [
    ([0, "fixed", 20, 20, 3], True, [[0, 10000, 1]]),  # cfg never
    ([0, "fixed", 20, 0, 3], True, [[0, 10000, 3]]),
    ([0, "fixed", 25, 1, 3.5, 0], True, [[0, 1, 1], [1, 10000, 3.5]]),
    ([0, "fixed", 50, 1, 3.5, 0.6], False, [[20, 10000, 3.5]]),  # of a picture: 60 % of the steps
    ([0, "fixed", 20, 1, 3.5, 0, 0.5], True, [[0, 1, 1], [1, 9, 3.5]]),  # ends early
]


@pytest.mark.parametrize(("values", "fresh", "expected"), PHASES)
def test_steps_of_each_cfg(driver, values, fresh, expected):
    script = (
        "async ([values, fresh]) => { const it = await import('/extensions/image-prompt/js/xlabs_sampler.js');"
        " return it.phases(it.settings(values), fresh).map((part) => [part.start, part.end, part.cfg]); }"
    )
    assert driver.page.evaluate(script, [values, fresh]) == expected
