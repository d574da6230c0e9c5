"""The doctor in the host: it sees the host's folders, checks the model's family, and helps where a file is missing."""

import json

import folder_paths
import pytest
import torch
from core.outlines import VIT_H, encoder, write_outline
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import MissingFileError
from image_prompt.nodes import NODE_CLASS_MAPPINGS, doctor
from support import tiny
from support.layouts import LAYOUTS

TABLES = {layout.file: layout.table for layout in LAYOUTS}


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """The host's models folder, temporary, with a plus adapter in a second adapter folder, and ViT-H."""
    searched = {"ipadapter": ["ipadapter", "more"], "clip_vision": ["clip_vision"], "loras": ["loras"]}
    for name, below in searched.items():
        paths = [str(tmp_path / place) for place in below]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, (paths, set(folders.EXTENSIONS)))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"), raising=False)
    write_outline(tmp_path / "more" / "mine.safetensors", TABLES["ip-adapter-plus_sd15"])
    write_outline(tmp_path / "clip_vision" / "h.safetensors", encoder(*VIT_H))
    return tmp_path


def examine(*values, **more):
    node = NODE_CLASS_MAPPINGS["ImagePromptDoctor"]()
    shown = node.examine(*values, **more)
    assert shown["ui"]["text"] == [shown["result"][0]]
    return shown["result"][0]


def test_the_report_lists_the_files_of_the_hosts_folders():
    report = examine("files only")
    assert "ipadapter/mine.safetensors" in report
    assert "clip_vision/h.safetensors" in report
    assert "Goals" not in report


def test_a_goal_is_checked_for_every_family_that_has_it():
    report = examine("plus")
    assert "plus on SD1.5: ready. mine.safetensors is taken for the plus adapter" in report
    assert "plus on SDXL: for 'plus' on SDXL you need" in report
    assert "plus on Kolors: for" in report


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_with_a_model_its_family_alone_is_checked(family):
    report = examine("plus", model=tiny.host_model(tiny.FAMILIES[family]))
    goals = report[report.index("Goals") :]
    assert [base for base in ("SD1.5", "SDXL", "Kolors") if f"plus on {base}:" in goals] == [family]


def test_kolors_is_distinguished_from_sdxl_by_its_projection_of_the_text():
    model = tiny.host_model(tiny.SDXL).clone()
    unet = model.get_model_object("diffusion_model")
    unet.encoder_hid_proj = torch.nn.Linear(1, 1)
    try:
        assert "plus on Kolors: for 'plus' on Kolors you need: Kolors-IP-Adapter-Plus.bin" in examine(
            "plus", model=model
        )
    finally:
        del unet.encoder_hid_proj


def test_it_always_runs_again():
    stamp = NODE_CLASS_MAPPINGS["ImagePromptDoctor"].IS_CHANGED(goal="plus")
    assert stamp != stamp


def test_the_index_lies_in_the_user_directory(models, monkeypatch):
    examine("files only")
    store = models / "user" / "image_prompt" / "index.json"
    assert str(models / "more" / "mine.safetensors") in json.loads(store.read_text())["files"]
    monkeypatch.delattr(folder_paths, "get_user_directory")
    assert folders.model_index().store is None
    assert not (models / "ipadapter").exists()
    (models / "ipadapter").mkdir()
    assert folders.model_index().store == models / "ipadapter" / ".image_prompt_index.json"


def test_a_missing_released_file_says_where_to_get_it_and_what_is_like_it():
    with pytest.raises(MissingFileError) as caught:
        folders.adapter_path("IP-Adapter-Plus-Face_SD15.bin")
    message = str(caught.value)
    assert "Of the same kind by their contents: mine.safetensors" in message
    assert (
        "https://huggingface.co/h94/IP-Adapter/resolve/main/models/ip-adapter-plus-face_sd15.safetensors"
        in message
    )
    assert "1c9edc21af6f737dc1d6e0e734190e976cfacf802d6b024b77aa3be922f7569b" in message
    assert "98 MB" in message


def test_a_file_that_nobody_released_gets_no_address():
    with pytest.raises(MissingFileError, match=r"Pick one of them, or download the adapter"):
        folders.adapter_path("gone.safetensors")


def test_adapters_in_folders_of_other_packs_are_in_the_menu(models, monkeypatch):
    write_outline(models / "IPAdapter" / "old.safetensors", TABLES["ip-adapter_sd15"])
    write_outline(models / "nodes" / "ComfyUI_IPAdapter_plus" / "models" / "older.safetensors", {})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(models / "nodes")], set()))
    folders.register_folders()
    assert folders.adapter_files() == ["mine.safetensors", "old.safetensors", "older.safetensors"]
    folders.register_folders()
    paths = folder_paths.get_folder_paths("ipadapter")
    assert len(paths) == len(set(paths))


# --- what the page draws and asks for ----------------------------------------------------------------------------


def test_the_page_gets_the_report_and_what_to_know_of_each_file_before_getting_it():
    node = NODE_CLASS_MAPPINGS["ImagePromptDoctor"]()
    (report,) = node.examine("face identity", model=tiny.host_model(tiny.SD15))["ui"]["report"]
    json.dumps(report)
    (goal,) = report["goals"]
    assert set(goal["needs"]) == set(report["files"])
    adapter = report["files"]["ip-adapter-faceid_sd15.bin"]
    assert adapter["commercial"] is False
    assert "non-commercial" in adapter["licence"]
    assert adapter["page"].startswith("https://huggingface.co/")
    assert adapter["folder"] == "ipadapter"
    assert report["downloads"] is True


def test_the_setting_turns_downloads_off_for_the_page_and_for_whoever_asks_the_server(monkeypatch):
    asked = []
    monkeypatch.setattr(doctor.DOWNLOADS, "start", asked.append)
    monkeypatch.setenv("IMAGE_PROMPT_DOWNLOADS", "0")
    node = NODE_CLASS_MAPPINGS["ImagePromptDoctor"]()
    assert node.examine("plus")["ui"]["report"][0]["downloads"] is False
    assert doctor.answer(["ip-adapter-plus_sd15.safetensors"]) == {"refused": doctor.REFUSED}
    assert asked == []
    monkeypatch.setenv("IMAGE_PROMPT_DOWNLOADS", "1")
    assert "states" in doctor.answer(["ip-adapter-plus_sd15.safetensors"])
    assert asked == [["ip-adapter-plus_sd15.safetensors"]]


@pytest.mark.parametrize("asked", [None, {}, "x", 3, {"names": ["a"]}])
def test_a_request_of_another_form_starts_nothing(asked):
    assert doctor.answer(asked) == {"states": doctor.DOWNLOADS.states()}
