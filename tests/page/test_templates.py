"""Templates of the nodes that show something: opened from their files, they have the values that are written there."""

import json

import pytest
from bootstrap import ROOT

pytestmark = pytest.mark.page
SHOWN = [
    ("27", "ImagePrompt", {"ipadapter_file": "ip-adapter-plus_sd15.safetensors", "weight": 0.7, "preset": "all"}),
    ("27", "ImagePromptWatch", {"sites": 8}),
    ("27", "ImagePromptHeatMap", {"opacity": 0.7, "scale": "each prompt's own"}),
    (
        "28",
        "ImagePromptSweep",
        {"weights": "0, 0.25, 0.5, 0.75, 1", "weight_type": "linear", "curves": "", "lora_strength": 1},
    ),
    ("28", "ImagePromptSheet", {"side": 512}),
    ("01", "ImagePrompt", {"weight": 0.7, "preset": "all"}),
]  # fmt: skip


@pytest.mark.parametrize(("number", "kind", "values"), SHOWN)
def test_a_template_opens_with_its_values(driver, number, kind, values):
    (path,) = (ROOT / "workflows").glob(f"{number} *.json")
    saved = json.loads(path.read_text(encoding="utf-8"))
    driver.open(saved)
    links = driver.page.evaluate(
        "() => [...(app.graph.links.values?.() ?? Object.values(app.graph.links))].length"
    )
    assert links == len(saved["links"])
    index = [node["type"] for node in sorted(saved["nodes"], key=lambda node: node["id"])].index(kind)
    found = driver.values(index)
    assert found == found | values
