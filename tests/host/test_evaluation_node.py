"""The node that scores: the command's numbers, and only models that a graph may use."""

import shutil

import comfy.model_management as mm
import folder_paths
import numpy as np
import pytest
import torch
import transformers
from helpers.evaluation import captioned, saved, sentence
from image_prompt.evaluation import command as cli
from image_prompt.evaluation.clip import PAPERS, Clip
from image_prompt.evaluation.kept import Kept
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import (
    CheckpointError,
    ImagePromptError,
    MissingFileError,
    SettingError,
)
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from PIL import Image
from safetensors.torch import load_file, save_file
from support import tiny, tiny_clip


@pytest.fixture
def references(tmp_path):
    return captioned(tmp_path / "references")


@pytest.fixture
def installed(clip, monkeypatch):
    folders = ([str(clip.parent)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", folders)
    return clip


class Touched(Exception):
    """Something was looked for."""


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../tiny", "tiny/..", "./tiny", "/etc", "C:\\models\\clip", "\\\\host\\share\\clip", "//host/share",
     "http://host/clip", "https://huggingface.co/openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32", "file:///x",
     "ti\0ny", "tiny\0", "\ud800", "x" * 100_000, "tiny\n", " tiny", "~", "$HOME", "openai/clip-vit-large-patch14/..",
     "TINY/../tiny", None, 7, ["tiny"], {"tiny": 1}],
    ids=lambda name: ascii(name)[:40],
)  # fmt: skip
def test_a_graph_reaches_no_other_model(name, installed, monkeypatch):
    def touched(*_, **__):
        raise Touched

    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", touched)
    node = NODE_CLASS_MAPPINGS["ImagePromptScore"]()
    with pytest.raises(MissingFileError, match="no model that a graph may use") as failure:
        node.score([tiny.picture(1)], [tiny.picture(2)], [""], [name], ["first"])
    assert "tiny" in sentence(str(failure.value))


def test_a_graph_reaches_installed_models_and_the_papers(installed, monkeypatch, tmp_path):
    assert folders.clip_model("tiny", PAPERS) == installed
    assert folders.clip_model(PAPERS, PAPERS) == PAPERS
    deep = tiny_clip.write(tmp_path / "sub" / "clip")
    near = tiny_clip.write(tmp_path / "clip-vit-large-patch14")
    searched = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", searched)
    assert folders.clip_model("sub\\clip", PAPERS) == folders.clip_model("sub/clip", PAPERS) == deep
    assert folders.clip_model(PAPERS, PAPERS) == near  # nothing is downloaded where it is installed


def test_a_model_without_all_its_tensors_is_refused(clip, tmp_path):
    """transformers fills what is missing with random numbers."""
    half = tmp_path / "half"
    shutil.copytree(clip, half)
    tensors = load_file(half / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if not n.startswith("text_model.")}, half / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"lacks \d+ tensors"):
        Clip(half)
    save_file({n: torch.full_like(t, float("nan")) for n, t in tensors.items()}, half / "model.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        Clip(half).pictures([Image.new("RGB", (9, 9))])
    (half / "model.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(CheckpointError, match="could not be loaded"):
        Clip(half)
    (half / "config.json").write_text("[" * 99_999)
    with pytest.raises(CheckpointError, match="could not be loaded"):
        Clip(half)


@pytest.mark.parametrize(
    ("generated", "told"),
    [
        (torch.zeros(0, 8, 8, 3), "generated has shape"),
        (torch.zeros(1, 8, 8, 2), "generated has shape"),
        (torch.zeros(8, 8, 3), "generated has shape"),
        (torch.zeros(2, 2, 8, 8, 3), "generated has shape"),
        (torch.zeros(1, 0, 8, 3), "generated has shape"),
        (torch.zeros(1, 1, 8192, 3), "generated is 8192 x 1 pixels"),
        (torch.full((1, 8, 8, 3), float("nan")), "not finite"),
        (torch.full((1, 8, 8, 3), float("inf")), "not finite"),
    ],
)
def test_pictures_of_odd_shapes_are_a_sentence(generated, told, installed):
    node = NODE_CLASS_MAPPINGS["ImagePromptScore"]()
    with pytest.raises(ImagePromptError, match=told):
        node.score([generated], [tiny.picture(2)], [""], ["tiny"], ["first"])
    with pytest.raises(ImagePromptError, match=told.replace("generated", "references")):
        node.score([tiny.picture(2)], [generated], [""], ["tiny"], ["first"])


def test_the_node_gives_the_numbers_of_the_command(references, tmp_path, clip, installed, capsys):
    made = saved(
        tmp_path / "made", *(f"{name}_{n}.png" for name in ("cat", "dog_1", "owl") for n in range(2))
    )
    assert (
        cli.main(
            [
                "score",
                "--references",
                str(references),
                "--out",
                str(tmp_path),
                "--clip",
                str(clip),
                f"m={made}",
            ]
        )
        == 0
    )

    def tensors(paths):
        return [torch.from_numpy(np.array(Image.open(path))).float()[None] / 255 for path in paths]

    node = NODE_CLASS_MAPPINGS["ImagePromptScore"]()
    names = ("cat", "dog_1", "owl")
    pictures = tensors(made / f"{name}_{n}.png" for name in names for n in range(2))
    given = tensors(references / f"{name}.png" for name in names)
    told = ["\n".join(f"a {name} | an animal" for name in names)]
    clip_i, clip_t, report, _ = node.score(pictures, given, told, ["tiny"], ["first"])
    printed = capsys.readouterr().out
    assert f"{clip_i:.4f}" in printed
    assert f"{clip_t:.4f}" in printed
    assert f"{clip_i:.4f}" in report
    assert node.score(pictures, given, [""], ["tiny"], ["first"])[1] == 0.0


def test_the_node_encodes_on_the_hosts_device_and_what_comes_again_not_at_all(
    installed, tmp_path, monkeypatch
):
    """Pictures are known by their pixels, in other nodes' tensors too."""
    monkeypatch.setattr(folders, "scores_folder", lambda: tmp_path / "scores")
    loads, encoded = [], []
    load, run = mm.load_models_gpu, Clip.encoded
    monkeypatch.setattr(
        mm, "load_models_gpu", lambda models, *a, **o: loads.append(models) or load(models, *a, **o)
    )
    monkeypatch.setattr(
        Clip, "encoded", lambda clip, values: encoded.append((len(values), clip.device)) or run(clip, values)
    )
    node = NODE_CLASS_MAPPINGS["ImagePromptScore"]()
    pictures, reference = tiny.picture(1, count=4), tiny.picture(9, count=2)

    def scored(made):
        loads.clear(), encoded.clear()
        return node.score([made.clone()], [reference.clone()], ["a\nb"], ["tiny"], ["first"])

    first = scored(pictures)
    assert encoded == [(6, mm.get_torch_device())]
    assert isinstance(loads[0][0].model["module"], transformers.CLIPModel)
    again = scored(pictures)
    assert (first[:3], loads, encoded) == (again[:3], [], [])
    changed = pictures.clone()
    changed[0, 0, 0, 0] = 1 - changed[0, 0, 0, 0].round()
    assert scored(changed)[0] != first[0]
    assert [count for count, _ in encoded] == [1]


def test_the_node_keeps_the_last_embeddings_only(installed, tmp_path):
    kept = Kept(tmp_path, "x", most=3)
    kept.put([f"{n:064x}" for n in range(5)], torch.arange(10.0).view(5, 2))
    kept.save()
    again = Kept(tmp_path, "x", most=3)
    assert [again.get(f"{n:064x}") is None for n in range(5)] == [True, True, False, False, False]
    assert again.get(f"{4:064x}").tolist() == [8.0, 9.0]


@pytest.mark.parametrize(
    ("count", "captions", "told"), [(5, "", "5 pictures came for 2"), (4, "one", "1 lines of captions")]
)
def test_the_node_tells_numbers_that_do_not_fit(clip, count, captions, told):
    node = NODE_CLASS_MAPPINGS["ImagePromptScore"]()
    with pytest.raises(SettingError, match=told):
        node.score(
            [tiny.picture(1, count=count)], [tiny.picture(2, count=2)], [captions], [str(clip)], ["first"]
        )
