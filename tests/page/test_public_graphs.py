"""Graphs of older packs, as people shared them: every node of ours opens with the values of its file, and no wider.

IMAGE_PROMPT_WORKFLOWS names a folder of such files; by the name of a folder inside it, the packs' generation: v1, v2, dit.
"""

import json
import os
from pathlib import Path

import pytest
from bootstrap import ROOT
from helpers.contract import Contract, contracts

FOLDER = os.environ.get("IMAGE_PROMPT_WORKFLOWS", "")
pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(not FOLDER, reason="IMAGE_PROMPT_WORKFLOWS names no folder of workflows"),
]
GENERATIONS = {
    "v1": ("v1", "v2", "copies"),
    "v2": ("v2", "v1", "copies"),
    "dit": ("copies", "v2", "v1"),
}
RENAMED = json.loads((ROOT / "web" / "js" / "old_values.json").read_text(encoding="utf-8"))
OPENED = """(graph) => app.loadGraphData(graph).then(() => {
    const pack = (type) => type?.nodeData?.python_module, ours = pack(LiteGraph.registered_node_types.ImagePromptLoader);
    return Object.fromEntries(graphNodes().filter((node) => pack(node.constructor) === ours).map((node) => [node.id, {
        type: node.type,
        width: node.size[0],
        values: Object.fromEntries((node.widgets ?? []).filter((widget) => widget.serialize !== false)
            .map((widget) => [widget.name, widget.value])),
    }]));
})"""


def promised(kind: str, folder: str) -> Contract | None:
    ids = (kind, kind.removesuffix("V2"))  # a copy of the pack has ids of its own
    known = (contracts()[generation].get(each) for each in ids for generation in GENERATIONS[folder])
    return next((contract for contract in known if contract), None)


def widgets(contract: Contract) -> list[str]:
    """Names of the inputs that have a widget, in order."""
    typed = ("FLOAT", "INT", "STRING", "BOOLEAN")
    return [each.name for each in contract.inputs if not isinstance(each.kind, str) or each.kind in typed]


def saved_values(node, contract: Contract) -> dict[str, object]:
    """By name; a file from before a node got its last inputs has fewer. Other forms of a node are another test's."""
    values, names = node.get("widgets_values") or [], widgets(contract)
    if isinstance(values, dict):
        return values
    return dict(zip(names, values, strict=False)) if len(values) <= len(names) else {}


def is_same(name: str, saved, found) -> bool:
    """As written, or as it is called now; a file, in the folder in which it lies here."""
    meant = RENAMED.get(name, {}).get(saved, {}).get(name, saved) if isinstance(saved, str) else saved
    if found == saved:
        return True
    if isinstance(meant, int | float) and isinstance(found, int | float):
        return found == pytest.approx(meant)
    of_files = isinstance(saved, str) and saved.endswith((".safetensors", ".bin", ".pth", ".pt"))
    return found == meant or (of_files and Path(str(found)).suffix != "")


@pytest.mark.parametrize("loaded", ["classic"], indirect=True)
@pytest.mark.parametrize("folder", GENERATIONS)
def test_values_and_widths_are_those_of_the_file(driver, folder, record_property):
    wrong, checked = [], 0
    for path in sorted((Path(FOLDER) / folder).glob("*.json")):
        graph = json.loads(path.read_text(encoding="utf-8"))
        opened = driver.page.evaluate(OPENED, graph)
        for node in graph["nodes"]:
            here, contract = opened.get(str(node["id"])), promised(node["type"], folder)
            if not here or contract is None or here["type"] != node["type"]:
                continue  # what became another node has other widgets
            size = node["size"]
            width = size["0"] if isinstance(size, dict) else size[0]
            if here["width"] > width + 1:
                wrong.append(f"{path.name}: {node['type']} is {here['width']} wide, saved {width}")
            for name, value in saved_values(node, contract).items():
                checked += 1
                found = here["values"].get(name, "no such widget")
                if not is_same(name, value, found):
                    wrong.append(f"{path.name}: {node['type']}.{name} is {found!r}, saved {value!r}")
        driver.page.keyboard.press("Escape")
    record_property("values", checked)
    assert wrong == []
    assert checked > 0
