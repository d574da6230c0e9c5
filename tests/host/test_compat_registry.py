"""Which ids are served, beside which other packs, and what becomes of prompts that older versions saved."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import image_prompt
import pytest
from helpers.contract import contracts, declared
from image_prompt import host
from image_prompt.nodes import NODE_CLASS_MAPPINGS, compat
from image_prompt.nodes.compat.loaders import CLASSES
from image_prompt.nodes.compat.old_forms import OLD_FORMS
from image_prompt.nodes.compat.old_prompts import FIRST_APPLY_HERE, FIRST_ENCODER_HERE
from image_prompt.nodes.compat.page_names import names_meant
from image_prompt.nodes.compat.problem import PROBLEM

PACK = Path(image_prompt.__path__[0])


def other_pack(*ids: str, folder: str = "ComfyUI_IPAdapter_plus") -> dict[str, type]:
    """Node classes as the host has them after it loaded another pack."""
    return {
        node_id: type("Theirs", (), {"RELATIVE_PYTHON_MODULE": f"custom_nodes.{folder}", "INPUT_TYPES": dict})
        for node_id in ids
    }


@pytest.fixture
def loaded(monkeypatch):
    """What the host has loaded, for a test to fill."""
    classes: dict[str, type] = {}
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(NODE_CLASS_MAPPINGS=classes))
    return classes


# --- which ids ---------------------------------------------------------------------------------------------------


def test_all_ids_are_served_where_no_other_pack_is(loaded, caplog):
    caplog.set_level(logging.INFO)
    served = compat.register()
    assert served == compat.node_classes()
    assert caplog.messages == [f"Image Prompt: {len(served)} node ids of older packs are served."]


def test_they_are_deprecated_and_ours_are_not(loaded):
    assert all(node.DEPRECATED for node in compat.register().values())
    own = [node for node_id, node in NODE_CLASS_MAPPINGS.items() if node_id not in compat.node_classes()]
    assert own
    assert not any(getattr(node, "DEPRECATED", False) for node in own)


def test_another_packs_ids_stay_its_own(loaded, caplog):
    caplog.set_level(logging.INFO)
    loaded |= other_pack("IPAdapterModelLoader", "IPAdapterUnifiedLoader", "TheirOtherNode")
    loaded |= other_pack("InsightFaceLoader", folder="SomePack")
    everything, served = compat.node_classes(), compat.register()
    assert served.keys() == everything.keys() - {
        "IPAdapterModelLoader",
        "IPAdapterUnifiedLoader",
        "InsightFaceLoader",
    }
    assert caplog.messages == [
        f"Image Prompt: {len(served)} node ids of older packs are served, and 3 left to their owners "
        "(2 to ComfyUI_IPAdapter_plus, 1 to SomePack)."
    ]


def test_ours_of_an_earlier_load_count_as_ours(loaded):
    loaded |= compat.register()
    assert compat.register() == compat.node_classes()


@pytest.mark.parametrize(
    ("module", "mark", "name"),
    [
        ("/opt/ComfyUI/custom_nodes/ComfyUI_IPAdapter_plus.IPAdapterPlus", None, "ComfyUI_IPAdapter_plus"),
        ("C:\\ComfyUI\\custom_nodes\\their-pack", None, "their-pack"),
        ("x", "custom_nodes.ComfyUI_IPAdapter_plus", "ComfyUI_IPAdapter_plus"),
        ("nodes", None, "nodes"),
    ],
)
def test_the_owner_is_named_by_its_folder(module, mark, name):
    attributes = {"__module__": module} | ({"RELATIVE_PYTHON_MODULE": mark} if mark else {})
    assert compat.pack_of(type("Node", (), attributes)) == name


@pytest.mark.parametrize("order", ["they first", "we first"])
def test_both_packs_in_either_order(loaded, order):
    """The host lets the later one have an id. Each prompt runs with whoever has it."""
    theirs = other_pack("IPAdapterModelLoader", "IPAdapterEncoder")
    if order == "they first":
        loaded |= theirs
        loaded |= compat.register()
    else:
        loaded |= compat.register()
        loaded |= theirs
    assert all(loaded[node_id] is node for node_id, node in theirs.items())
    assert loaded["IPAdapterUnifiedLoader"] is CLASSES["IPAdapterUnifiedLoader"]
    prompt = {"1": {"class_type": "IPAdapterModelLoader", "inputs": {"ipadapter_file": "a"}}}
    compat.renew_prompt(prompt)
    assert prompt["1"]["inputs"] == {"ipadapter_file": "a"}


def test_the_managers_list_names_every_id():
    """It reads node_list.json beside literal tables, and so knows who can open a workflow."""
    listed = json.loads((PACK / "node_list.json").read_text(encoding="utf-8"))
    assert listed == dict.fromkeys(sorted(NODE_CLASS_MAPPINGS), "")


V2, V1, COPIES = contracts()["v2"], contracts()["v1"], contracts()["copies"]
# Not in any pack: what graphs of an older form are retyped to, an error's node, and a node that only wrote a text.
OWN = {FIRST_ENCODER_HERE, FIRST_APPLY_HERE, PROBLEM, "IPAdapterLayerWeightsSlider"}
OWN |= {form.here for form in OLD_FORMS.values() if form.here}


def test_every_id_of_all_packs_is_there():
    assert compat.node_classes().keys() - OWN == V2.keys() | V1.keys() | COPIES.keys() | {
        f"{node_id}V2" for node_id in V2
    }


@pytest.mark.parametrize("node_id", sorted(V1 | V2 | COPIES))
def test_each_declares_what_the_older_pack_promised(node_id):
    """Where both generations have an id the later one's promise counts. Menus of files are this installation's."""
    assert not unlike(compat.node_classes()[node_id], (V1 | V2 | COPIES)[node_id])


@pytest.mark.parametrize("node_id", sorted(V2))
def test_the_copies_with_v2_behind_their_ids_promise_the_same(node_id):
    copy = compat.node_classes()[f"{node_id}V2"]
    assert not unlike(copy, replace(V2[node_id], title=f"{V2[node_id].title} V2"))
    assert copy is not compat.node_classes()[node_id]


def unlike(node, promised):
    made = declared(node)
    facts = [(made.title, promised.title), (made.method, promised.method), (made.outputs, promised.outputs)]
    facts += [(made.output_node, promised.output_node)]
    facts += [([i.name for i in made.inputs], [i.name for i in promised.inputs])]
    of_files = {entry.name for entry in promised.inputs if entry.kind == ()}
    pairs = zip(made.inputs, promised.inputs, strict=True)
    facts += [pair for pair in pairs if pair[1].name not in of_files]
    return [pair for pair in facts if pair[0] != pair[1]]


def test_no_id_of_the_host_is_taken():
    """XLabs' and laksjdjf's graphs hold ids that are the host's own today."""
    import nodes as host_nodes

    of_host = {i for i, node in host_nodes.NODE_CLASS_MAPPINGS.items() if not compat.is_ours(node)}
    assert not of_host & compat.node_classes().keys()
    assert not {"ImageCrop", "XlabsSampler", "FluxLoraLoader"} & compat.node_classes().keys()


# --- the host's server -------------------------------------------------------------------------------------------


class Server:
    """Of a host's PromptServer what is used; `manager` is missing on older ones."""

    def __init__(self, manager=None):
        self.handlers, self.offered = [], []
        if manager:
            self.node_replace_manager = SimpleNamespace(register=manager(self.offered))

    def add_on_prompt_handler(self, handler):
        self.handlers.append(handler)

    def queue(self, prompt):
        data = {"prompt": prompt}
        for handler in self.handlers:
            data = handler(data)
        return data["prompt"]


@pytest.fixture
def serve(monkeypatch):
    def start(manager=None):
        server = Server(manager)
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
        monkeypatch.setitem(sys.modules, "server", module)
        return server

    return start


@pytest.fixture
def api(monkeypatch):
    """The host's module that declares replacements, on hosts of today."""

    def replace(new_node_id, old_node_id, old_widget_ids, input_mapping, output_mapping):
        return (new_node_id, old_node_id, old_widget_ids, input_mapping, output_mapping)

    io = SimpleNamespace(NodeReplace=replace)
    monkeypatch.setitem(sys.modules, "comfy_api", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "comfy_api.latest", SimpleNamespace(io=io))


def test_ours_are_offered_where_an_old_id_is_missing(loaded, serve, api):
    server = serve(lambda offered: offered.append)
    compat.register()
    new, old, widgets, inputs, outputs = server.offered[0]
    assert (new, old, widgets) == ("ImagePromptLoader", "IPAdapterModelLoader", ["ipadapter_file"])
    assert inputs == [{"new_id": "ipadapter_file", "old_id": "ipadapter_file"}]
    assert outputs == [{"new_idx": 0, "old_idx": 0}]


def test_replacements_map_required_inputs_of_both_only():
    for old, new, inputs, widgets in compat.REPLACEMENTS:
        theirs = compat.node_classes()[old].INPUT_TYPES()["required"]
        ours = NODE_CLASS_MAPPINGS[new].INPUT_TYPES()["required"]
        assert set(inputs) == set(theirs)
        assert set(inputs.values()) == set(ours)
        assert set(widgets) <= set(inputs)
        assert NODE_CLASS_MAPPINGS[new].RETURN_TYPES == compat.node_classes()[old].RETURN_TYPES


def test_a_host_that_refuses_them_does_no_harm(loaded, serve, api):
    def refuse(_):
        raise TypeError("another interface")

    serve(lambda _: refuse)
    assert compat.register()


def test_a_host_without_any_of_it_does_no_harm(loaded, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=object()))
    )
    assert compat.register()


@pytest.mark.parametrize(
    "prompt", [None, {}, {"1": None}, {"1": {"inputs": 3}}, {"1": {"class_type": "X"}}, []]
)
def test_odd_prompts_pass_as_they_are(loaded, serve, prompt):
    server = serve()
    compat.register()
    assert server.queue(prompt) == prompt


def test_a_queued_prompt_is_renewed_and_given_what_replacements_need(loaded, serve):
    server = serve()
    loaded |= compat.register()
    prompt = server.queue(
        {
            "1": {"class_type": "IPAdapterInsightFaceLoader", "inputs": {"provider": "CPU"}},
            "2": {
                "class_type": "IPAdapterEncoder",
                "inputs": {"image_1": ["4", 0], "ipadapter_plus": True, "weight_1": 1.0},
            },
            "3": {"class_type": "IPAdapterModelLoader", "inputs": {"ipadapter_file": "a"}},
        }
    )
    assert prompt["1"]["inputs"]["model_name"] == "buffalo_l"
    assert prompt["2"]["class_type"] == "ImagePromptLegacyEncoder"
    assert prompt["3"]["_meta"] == {}


def test_what_a_converter_lost_is_shown_on_the_node(loaded, serve, monkeypatch):
    """The page's list of errors names the node and leaves out what it says."""
    said = []
    monkeypatch.setattr(host, "show_status", lambda node_id, text: said.append((node_id, text)))
    server = serve()
    loaded |= compat.register()
    prompt = server.queue({"5:2": {"class_type": "IPAdapterEncoder", "inputs": {"image_1": ["4", 0]}}})
    assert said == [("5:2", prompt["5:2"]["inputs"]["problem"])]
    assert "came without its values ipadapter_plus, weight_1" in said[0][1]


def test_the_page_can_ask_which_files_names_mean(tmp_path, monkeypatch):
    for name, folder in (("sub/ip-adapter-plus_sd15.safetensors", "ipadapter"), ("faces/a.ipadpt", "input")):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path / "ipadapter")], {".safetensors"})
    )
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "image_prompts", ([str(tmp_path / "no")], set()))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    meant = names_meant(["ip-adapter_sd15_plus.bin", "faces\\a.ipadpt", "faces/a.ipadpt", "other", 3, None])
    adapter = {"ip-adapter_sd15_plus.bin": "sub/ip-adapter-plus_sd15.safetensors"}
    assert meant["ipadapter_file"] == meant["model_name"] == adapter
    assert meant["embeds"] == {"faces\\a.ipadpt": "faces/a.ipadpt"}
    assert names_meant({"not": "a list"})["embeds"] == {}
