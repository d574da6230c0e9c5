"""What graphs name: files of other systems, replaced files, odd folders, names that cannot be; none is a raw error."""

import os

import folder_paths
import pytest
import torch
from core.outlines import VIT_H, encoder, write_outline
from core.small import CONTEXT, adapter, flat, randn
from helpers import face_graphs
from helpers.reads import opened_in
from image_prompt.host import face_models, folders, saved
from image_prompt.ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, WriteError
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.ipadapter_core.prompt_file import save_prompt
from image_prompt.model_files.released import Intent
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from safetensors.torch import save_file
from support import tiny
from support.layouts import LAYOUTS
from support.prompts import make_adapter

LOADERS = ("ImagePromptLoader", "IPAdapterModelLoader", "ImagePrompt")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """All of the host's folders, temporary."""
    for name in ("ipadapter", "clip_vision", "loras", "image_prompts"):
        (tmp_path / name).mkdir()
        paths = ([str(tmp_path / name)], set(folders.EXTENSIONS))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def node(node_id):
    return NODE_CLASS_MAPPINGS[node_id]


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_prompt(make_prompt(adapter(), randn(1, 4, CONTEXT), randn(1, 4, CONTEXT)), path)
    return path


def relist():
    folder_paths.filename_list_cache.clear()


@pytest.mark.parametrize("node_id", LOADERS)
@pytest.mark.parametrize("name", ["sd15/a.safetensors", "sd15\\a.safetensors"])
def test_adapters_of_graphs_saved_on_another_system(node_id, name, root):
    (root / "ipadapter" / "sd15").mkdir()
    save_file(flat(), root / "ipadapter" / "sd15" / "a.safetensors")
    assert node(node_id).VALIDATE_INPUTS(ipadapter_file=name) is True
    assert (
        node(node_id).IS_CHANGED(ipadapter_file=name)
        == folders.adapter_stamp("sd15/a.safetensors")
        != "missing"
    )
    if node_id == "ImagePromptLoader":
        assert node(node_id)().load(name)[0].name == "a.safetensors"


def test_saved_prompts_of_graphs_saved_on_another_system(root):
    save(root / "output" / "deep" / "a.safetensors")
    assert saved.prompt_path("output\\deep\\a.safetensors") == root / "output" / "deep" / "a.safetensors"
    assert node("ImagePromptLoad").VALIDATE_INPUTS(prompt_file="output\\deep\\a.safetensors") is True
    assert node("ImagePromptLoad").VALIDATE_INPUTS(prompt_file=None) is True
    assert "not there" in node("ImagePromptLoad").VALIDATE_INPUTS(prompt_file="output/no.safetensors")


HOSTILE_NAMES = (
    "\\\\host\\share\\a.safetensors", "//host/share/a", "/etc/passwd", "C:\\Windows\\a", "c:a", "..\\..\\a", "../../a",
    "a/../../../b", "", ".", "..", "a\0b", "a\nb", "\ud800", "\udcff", "\\\\?\\C:\\a", "\\\\.\\pipe\\a",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_from_a_link_finds_nothing_outside_and_touches_no_share(name, root, monkeypatch):
    asked = []
    for what in ("stat", "lstat", "scandir", "open"):
        real = getattr(os, what)
        monkeypatch.setattr(
            os, what, lambda path=".", *a, real=real, **k: asked.append(str(path)) or real(path, *a, **k)
        )
    for find in (folders.adapter_path, saved.prompt_path, saved.embeds_path, face_models.path_of):
        with pytest.raises(MissingFileError) as caught:
            find(name)
        one_line(caught.value)
    for mark in (folders.adapter_stamp, saved.prompt_stamp, saved.embeds_stamp, face_models.stamp):
        assert mark(name) == "missing"
    assert not [path for path in asked if "host" in path or "pipe" in path or "etc/passwd" in path]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_to_write_stays_below_its_folder_and_touches_no_share(name, root, monkeypatch):
    asked = []
    for what in ("stat", "lstat", "mkdir", "readlink"):
        real = getattr(os, what)
        monkeypatch.setattr(
            os, what, lambda path, *a, real=real, **k: asked.append(str(path)) or real(path, *a, **k)
        )
    for place in (saved.new_prompt_path, saved.new_embeds_path):
        with pytest.raises(SettingError) as caught:
            place(name)
        one_line(caught.value)
    if name.strip("."):
        with pytest.raises(SettingError):
            folders.new_adapter_path(name, ".safetensors")
    assert not [path for path in asked if "host" in path or "share" in path or "pipe" in path]
    assert os.listdir(root / "output") == []


def test_values_that_are_no_names_are_sentences(root):
    for value in (5, 1.5, True, [], {}):
        for node_id in LOADERS:
            assert "is not in" in node(node_id).VALIDATE_INPUTS(ipadapter_file=value)
            assert node(node_id).IS_CHANGED(ipadapter_file=value) == "missing"
        assert "not there" in node("ImagePromptLoad").VALIDATE_INPUTS(prompt_file=value)
        assert "is not in" in node("ImagePromptFaces").VALIDATE_INPUTS(face_model=value)
        assert node("ImagePromptFaces").IS_CHANGED(face_model=value) == "missing"


def one_line(error: Exception) -> None:
    str(error).encode("utf-8")
    assert "\n" not in str(error)
    assert "\0" not in str(error)


def test_folders_of_either_system_are_made_below_the_output_folder(root):
    for prefix in ("a\\b\\prompt", "a/b/prompt", "a/x/../b/prompt"):
        assert saved.new_prompt_path(prefix) == root / "output" / "a" / "b" / "prompt_00001.safetensors"


def test_a_link_that_leads_out_or_to_itself_is_refused(root):
    (root / "output" / "out").symlink_to(root)
    (root / "output" / "round").symlink_to(root / "output" / "round")
    for prefix in ("out/a", "round/a"):
        with pytest.raises(ImagePromptError):
            saved.new_prompt_path(prefix)


def test_writers_say_what_is_wrong_in_a_sentence(root):
    (root / "output" / "taken").write_text("a file")
    prompt = make_prompt(adapter(), randn(1, 4, CONTEXT), randn(1, 4, CONTEXT))
    for prefix in ("taken/a", "x" * 300, "y" * 300 + "/a"):
        with pytest.raises(WriteError, match="could not be written"):
            node("ImagePromptSave")().save(prompt, prefix)
        with pytest.raises(WriteError, match="could not be written"):
            node("IPAdapterSaveEmbeds")().save(torch.zeros(1, 4), prefix)
    assert os.listdir(root / "output") == ["taken"]


def test_prompts_are_inspected_once_and_pipes_never(root):
    save(root / "output" / "a.safetensors")
    os.mkfifo(root / "input" / "pipe.safetensors")
    os.mkfifo(root / "input" / "pipe.ipadpt")
    (root / "input" / "folder.safetensors").mkdir()
    (root / "input" / "broken.safetensors").write_bytes(b"\xff" * 100)
    for n in range(2000):
        (root / "input" / f"{n}.safetensors").write_bytes(b"x")
    assert list(saved.saved_prompts()) == ["output/a.safetensors"]
    with opened_in(root / "input") as opened:
        assert list(saved.saved_prompts()) == ["output/a.safetensors"]
    assert opened == []
    assert saved.embeds_files() == {}
    save(root / "input" / "b.safetensors")
    assert list(saved.saved_prompts()) == ["input/b.safetensors", "output/a.safetensors"]


def replaced(path, seed):
    save_file(flat("base", seed=seed), path)
    os.utime(path, ns=(seed, seed))
    relist()


@pytest.mark.parametrize("node_id", LOADERS)
@pytest.mark.parametrize("given", ["a.safetensors", None], ids=["named", "linked"])
def test_a_replaced_adapter_is_noticed(node_id, given, root):
    path = root / "ipadapter" / "a.safetensors"
    replaced(path, 1)
    first = node(node_id).IS_CHANGED(ipadapter_file=given)
    assert node(node_id).IS_CHANGED(ipadapter_file=given) == first
    replaced(path, 2)
    assert node(node_id).IS_CHANGED(ipadapter_file=given) != first
    path.unlink()
    relist()
    assert node(node_id).IS_CHANGED(ipadapter_file=given) == "missing"


AUTO = (
    ("ImagePromptAutoLoader", {"intent": Intent.PLUS.value}),
    ("ImagePromptAutoLoader", {}),
    ("IPAdapterUnifiedLoader", {"preset": "PLUS (high strength)"}),
    ("IPAdapterUnifiedLoader", {}),
)


@pytest.mark.parametrize(("node_id", "given"), AUTO)
def test_loaders_that_choose_notice_files_that_may_serve_and_no_others(node_id, given, root):
    table = next(layout.table for layout in LAYOUTS if layout.file == "ip-adapter-plus_sd15")
    path = write_outline(root / "ipadapter" / "x.safetensors", table)
    write_outline(root / "clip_vision" / "y.safetensors", encoder(*VIT_H))
    changed = node(node_id).IS_CHANGED
    marks = [changed(**given)]
    write_outline(root / "loras" / "other.safetensors", {"lora_unet.lora_down.weight": (4, 8)})
    assert changed(**given) == marks[0]
    for change in (path, root / "clip_vision" / "y.safetensors"):
        os.utime(change, ns=(7, 7))
        marks.append(changed(**given))
    assert len(set(marks)) == 3


@pytest.mark.parametrize(
    ("node_id", "given"),
    [
        ("ImagePromptFaces", {"face_model": "buffalo_l"}),
        ("ImagePromptFaces", {}),
        ("IPAdapterInsightFaceLoader", {"provider": "CPU", "model_name": "buffalo_l"}),
        ("InsightFaceLoader", {"provider": "CPU"}),
        ("IPAdapterUnifiedLoaderFaceID", {"preset": "FACEID", "provider": "CPU"}),
    ],
)
def test_a_replaced_face_model_is_noticed(node_id, given, root):
    pack = root / "insightface" / "models" / "buffalo_l"
    face_graphs.toy_pack(pack)
    first = node(node_id).IS_CHANGED(**given)
    assert node(node_id).IS_CHANGED(**given) == first
    os.utime(next(pack.rglob("*.onnx")), ns=(7, 7))
    assert node(node_id).IS_CHANGED(**given) != first


def test_an_adapter_that_is_cut_while_it_is_loaded_goes_on_as_it_was(root):
    """With its host's handle, on the device and off: mapped, this would end the process."""
    whole = make_adapter("base", tiny.SD15)
    path = root / "ipadapter" / "a.safetensors"
    tensors = {f"{role}.{key}": value for role in whole for key, value in whole[role].items()}
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    relist()
    loaded = node("ImagePromptLoader")().load("a.safetensors")[0]
    os.truncate(path, 10)
    tokens = randn(1, 4, 768)
    for (k, v), (k2, v2) in zip(loaded.keys_values(tokens), whole.keys_values(tokens), strict=True):
        assert torch.equal(k, k2)
        assert torch.equal(v, v2)
