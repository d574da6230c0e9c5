"""The subgraph blueprints: whole, of nodes that exist, and each does in a graph what its name says."""

import pytest
import torch
from helpers import workflows
from helpers.blueprint_files import BLUEPRINTS, document, subgraph
from helpers.blueprints import INPUT, OUTPUT, check_value, inside, placed
from helpers.workflows import inputs_of, node_classes, of_type, run, unprompted

OTHER = 1e-3  # of the largest value
WORDS = ("style", "face", "regions", "controlnet")
by_name = pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)


def test_there_are_five_that_are_found_by_their_names():
    """And by further words, in pages that read them from the file."""
    names = [path.stem.lower() for path in BLUEPRINTS]
    assert len(names) == 5
    assert all("ipadapter" in name for name in names)
    assert all(any(word in name for name in names) for word in WORDS)
    assert all(len(document(path)["extra"]["BlueprintSearchAliases"]) > 3 for path in BLUEPRINTS)


@by_name
def test_its_names_agree(path):
    """The page takes the file's name, the node's title when it is put down, and the subgraph's when it is opened."""
    whole, inner = document(path), subgraph(path)
    (outer,) = whole["nodes"]
    assert outer["title"] == inner["name"] == path.stem
    assert outer["type"] == inner["id"]
    assert whole["extra"]["BlueprintDescription"] == inner["description"]
    assert inner["category"] == "Image Prompt"
    for side in ("inputs", "outputs"):
        slots = [(slot["name"], slot["type"]) for slot in inner[side]]
        assert slots == [(slot["name"], slot["type"]) for slot in outer[side]]
        assert len(set(slots)) == len(slots)


@by_name
def test_its_links_join_slots_that_exist(path):
    inner = subgraph(path)
    nodes = {node["id"]: node for node in inner["nodes"]}
    assert len({link["id"] for link in inner["links"]}) == len(inner["links"])
    for link in inner["links"]:
        origin, target = nodes.get(link["origin_id"]), nodes.get(link["target_id"])
        if origin is None:
            assert link["origin_id"] == INPUT
            assert link["id"] in inner["inputs"][link["origin_slot"]]["linkIds"]
        else:
            kind = node_classes()[origin["type"]].RETURN_TYPES[link["origin_slot"]]
            assert kind == link["type"]
            assert link["id"] in origin["outputs"][link["origin_slot"]]["links"]
        if target is None:
            assert link["target_id"] == OUTPUT
            assert link["id"] in inner["outputs"][link["target_slot"]]["linkIds"]
        else:
            socket = target["inputs"][link["target_slot"]]
            assert socket["link"] == link["id"]
            assert link["type"] in socket["type"].split(",")


@by_name
def test_its_slots_and_values_are_those_of_the_nodes(path):
    for node in subgraph(path)["nodes"]:
        inputs = inputs_of(node_classes()[node["type"]])
        for slot in node["inputs"]:
            kind = inputs[slot["name"]][0]
            if "widget" in slot:
                assert workflows.is_widget(kind)
                assert slot["type"] == ("COMBO" if isinstance(kind, list) else kind)
            else:
                assert kind == slot["type"]
        names = getattr(node_classes()[node["type"]], "RETURN_NAMES", None)
        assert names is None or [slot["name"] for slot in node["outputs"]] == [*names][: len(node["outputs"])]
    for call in inside(path).values():
        inputs = inputs_of(node_classes()[call.type])
        for name, value in call.values.items():
            check_value(f"{call.type}.{name}", value, *inputs[name])
        required = node_classes()[call.type].INPUT_TYPES()["required"]
        assert required.keys() <= call.values.keys() | call.links.keys()


@by_name
def test_every_model_file_says_where_it_comes_from(path):
    for node in subgraph(path)["nodes"]:
        values = {value for value in node["widgets_values"] if str(value).endswith((".safetensors", ".bin"))}
        known = {file["name"]: file for file in node["properties"].get("models", ())}
        assert values <= known.keys()
        assert all(file["url"].startswith("https://huggingface.co/") for file in known.values())


@by_name
def test_it_steers_the_picture(path, models):
    """With the tests' small models under the names that it has, in the graph that a user puts around it."""
    graph = placed(
        path, "sd_xl_base_1.0.safetensors" if "SDXL" in path.stem else "v1-5-pruned-emaonly.safetensors"
    )
    made, without = run(graph).pictures, run(unprompted(graph)).pictures
    assert torch.isfinite(made).all()
    assert (made - without).abs().max() > OTHER * made.abs().max()
    for seed, image in enumerate(of_type(graph, "LoadImage"), 60):
        other = run(graph, {image: workflows.picture(graph, seed)}).pictures
        assert (made - other).abs().max() > OTHER * made.abs().max()
