"""App mode: the templates that have a form show it, with the inputs and the result that they name."""

import json

import pytest
from bootstrap import ROOT

pytestmark = pytest.mark.page
APPS = [
    path
    for path in sorted((ROOT / "workflows").glob("*.json"))
    if "linearData" in json.loads(path.read_text(encoding="utf-8"))["extra"]
]


def test_three_templates_have_a_form():
    assert [path.stem for path in APPS] == ["01 Simplest", "05 Regions", "17 Face identity"]


@pytest.mark.parametrize("path", APPS, ids=lambda path: path.stem)
def test_the_form_has_what_it_names(driver, path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    driver.open(graph)
    data = graph["extra"]["linearData"]
    kept = driver.page.evaluate(
        "() => app.graph.serialize().extra?.linearData ?? app.graph.extra?.linearData"
    )
    assert len(kept["inputs"]) == len(data["inputs"])
    assert [str(output) for output in kept["outputs"]] == data["outputs"]
    missing = driver.page.evaluate(
        "(inputs) => inputs.filter(([id, name]) => {"
        " const node = app.graph.getNodeById(Number(id)); return !node?.widgets?.some((each) => each.name === name); })",
        data["inputs"],
    )
    assert missing == []
