"""Menus are directory listings: drawing every node's inputs opens no model file. Clients read them as lists."""

import json
import sys
from pathlib import Path

import folder_paths
import pytest
from core.outlines import write_outline
from image_prompt.host import folders
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support.layouts import LAYOUTS

_opened: list[Path] = []
_watched: list[Path] = []


def _on_open(event: str, arguments: tuple) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str | Path):
        path = Path(arguments[0])
        if any(folder in path.parents for folder in _watched):
            _opened.append(path)


# cannot be removed; it acts only while a folder is watched
sys.addaudithook(_on_open)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """200 full-size model files of every kind and a face model, none of which costs disk."""
    for n in range(200):
        layout = LAYOUTS[n % len(LAYOUTS)]
        folder = ("ipadapter", "clip_vision", "loras")[n % 3]
        write_outline(tmp_path / folder / f"{n}.safetensors", {"a": (1,), **layout.image_proj})
    (tmp_path / "insightface" / "models" / "buffalo_l").mkdir(parents=True)
    (tmp_path / "insightface" / "models" / "buffalo_l" / "det.onnx").write_bytes(b"x")
    for name in ("ipadapter", "clip_vision", "loras"):
        paths = ([str(tmp_path / name)], set(folders.EXTENSIONS))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def test_drawing_the_menus_opens_no_model_file(models):
    _watched.extend(models / name for name in ("ipadapter", "clip_vision", "loras", "insightface"))
    try:
        inputs = {node_id: node.INPUT_TYPES() for node_id, node in NODE_CLASS_MAPPINGS.items()}
        (models / "ipadapter" / "0.safetensors").open("rb").close()  # the hook does see one
    finally:
        _watched.clear()
    seen, _opened[:] = list(_opened), []
    assert seen == [models / "ipadapter" / "0.safetensors"]
    assert len(inputs["ImagePromptLoader"]["required"]["ipadapter_file"][0]) == 67
    assert inputs["ImagePromptFaces"]["required"]["face_model"][0] == ["buffalo_l"]


@pytest.mark.parametrize("node_id", sorted(NODE_CLASS_MAPPINGS))
def test_a_menu_is_a_list_in_what_clients_read(node_id):
    """/object_info is INPUT_TYPES as JSON; SwarmUI reads a menu as a list, the form that every host has."""
    declared = json.loads(json.dumps(NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()))
    kinds = [spec[0] for name in ("required", "optional") for spec in declared.get(name, {}).values()]
    assert "COMBO" not in kinds
    menus = [kind for kind in kinds if not isinstance(kind, str)]
    assert all(
        isinstance(menu, list) and all(isinstance(each, str | float | int) for each in menu) for menu in menus
    )


@pytest.mark.parametrize(
    "node_id",
    ["ImagePrompt", "ImagePromptApply", "ImagePromptEncode", "ImagePromptLoader", "ImagePromptAutoLoader"],
)
def test_main_nodes_are_found_under_the_name_that_people_search(node_id):
    """comfy-cli searches names and descriptions, not aliases."""
    assert "IPAdapter" in NODE_CLASS_MAPPINGS[node_id].DESCRIPTION
