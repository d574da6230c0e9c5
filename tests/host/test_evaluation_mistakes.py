"""Evaluation with pictures, numbers, names and disks that cannot work: named in a sentence, and nothing else is lost."""

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
import transformers
from helpers import hostile
from helpers.hostile import Script, serving
from image_prompt.evaluation import command as cli
from image_prompt.evaluation import running
from image_prompt.evaluation.clip import PAPERS, Clip
from image_prompt.evaluation.matching import match, read_captions
from image_prompt.evaluation.report import write
from image_prompt.evaluation.scoring import Embeddings, evaluate
from image_prompt.evaluation.servers import Server
from image_prompt.evaluation.workflow import Workflow, read_workflow
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import (
    CheckpointError,
    ImagePromptError,
    MissingFileError,
    SettingError,
    WriteError,
)
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from PIL import Image
from safetensors.torch import load_file, save_file
from support import tiny, tiny_clip

COMMAND = [
    sys.executable,
    str(Path(__file__).parents[1] / "helpers" / "command.py"),
    "evaluate",
]
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 7.5, "add_noise": True}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip.write(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture
def references(tmp_path):
    return painted(tmp_path / "references", "cat.png", "dog.png", "owl.png", "yak.png")


def painted(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + number, 40), 60).convert("RGB").save(folder / name)
    return folder


def workflow(tmp_path: Path, graph: object = GRAPH) -> Path:
    path = tmp_path / "flow.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return path


def score(references: Path, out: Path, clip: Path, *more: str) -> int:
    return cli.main(["score", "--references", str(references), "--out", str(out), "--clip", str(clip), *more])


def sentence(text: str) -> str:
    assert text.isprintable(), ascii(text)
    assert len(text) < 700
    assert text.endswith(".")
    return text


# --- what is scored ----------------------------------------------------------------------------------------------


def break_pictures(folder: Path) -> None:
    whole = (folder / "cat_0.png").read_bytes()
    (folder / "cat_1.png").write_bytes(whole[:200])
    (folder / "dog_1.png").write_bytes(b"")
    (folder / "owl_1.png").write_text("<html>not found</html>")
    (folder / "owl_2.png").write_bytes(hostile.huge_png(12_000, 12_000))
    (folder / "yak_1.png").mkdir()
    os.mkfifo(folder / "yak_2.png")


def test_broken_pictures_are_left_out_and_named(references, tmp_path, clip, capsys, caplog):
    made = painted(tmp_path / "made", *(f"{name}_0.png" for name in ("cat", "dog", "owl", "yak")))
    assert score(references, tmp_path / "before", clip, f"m={made}") == 0
    before = capsys.readouterr().out
    break_pictures(made)
    assert score(references, tmp_path / "after", clip, f"m={made}") == 0
    assert capsys.readouterr().out.replace("after", "before") == before
    text = (tmp_path / "after" / "scores.md").read_text()
    for name in ("cat_1", "dog_1", "owl_1", "owl_2", "yak_1", "yak_2"):
        assert f"{name}.png cannot be " in text or f"{name}.png is no file" in text, name
        assert f"{name}.png" in caplog.text
    assert "12000 x 12000 pixels" in text
    assert "left out" not in (tmp_path / "before" / "scores.md").read_text()


def test_a_broken_reference_takes_its_pictures_with_it(references, tmp_path, clip, capsys):
    made = painted(tmp_path / "made", "cat_0.png", "dog_0.png", "dog_1.png")
    (references / "dog.png").write_bytes((references / "dog.png").read_bytes()[:99])
    assert score(references, tmp_path / "out", clip, f"m={made}") == 0
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "Its 2 pictures are left out." in text
    assert len((tmp_path / "out" / "scores.csv").read_text().splitlines()) == 1 + 1


def test_nothing_but_broken_pictures_is_a_sentence(references, tmp_path, clip, caplog):
    made = painted(tmp_path / "made", "cat_0.png")
    (made / "cat_0.png").write_bytes(b"GIF89a")
    assert score(references, tmp_path / "out", clip, f"m={made}") == 1
    assert "none of its pictures can be scored" in caplog.text


def test_bare_references_strangers_and_unequal_sets_are_reported_and_the_shared_compared(
    references, tmp_path, clip, capsys
):
    one = painted(tmp_path / "one", "cat_0.png", "cat_1.png", "dog_0.png", "lion_0.png")
    two = painted(tmp_path / "two", "dog_0.png", "owl_0.png")
    assert score(references, tmp_path / "out", clip, f"one={one}", f"two={two}") == 0
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "one: nothing was generated from 2 references: owl, yak." in text
    assert "two: nothing was generated from 2 references: cat, yak." in text
    assert "one: 1 pictures belong to no reference and are left out: lion_0.png." in text
    assert "one: references have from 1 to 2 pictures" in text
    assert "one has pictures of 1 references that another method lacks: cat." in text
    assert "Over the 1 references that all methods have, so that rows compare:" in text
    shared = text.split("Over the 1 references")[1]
    lone = painted(tmp_path / "lone", "x.png") and tmp_path / "lone"
    (lone / "x.png").unlink()
    (lone / "dog_0.png").write_bytes((one / "dog_0.png").read_bytes())
    assert score(references, tmp_path / "alone", clip, f"one={lone}") == 0
    row = next(
        line for line in (tmp_path / "alone" / "scores.md").read_text().splitlines() if "| one" in line
    )
    value = row.split("|")[5].strip()
    assert value in next(line for line in shared.splitlines() if "| one" in line)


def test_deep_pictures_have_their_true_values(references, tmp_path, clip):
    """A 16-bit grey PNG is the 8-bit one; it was white."""
    grey = np.linspace(0, 255, 1600).reshape(40, 40)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint8).astype(np.uint16) * 257).save(tmp_path / "16.png")
    a, b = Clip(clip).pictures([tmp_path / "8.png", tmp_path / "16.png"])
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.jsonl", b'["cat.png", "a cat"]\n', "entry 1 of c.jsonl"),
        ("c.jsonl", b'{"text": "a cat"}\n', "names no picture"),
        ("c.jsonl", b'{"file_name": "cat.png", "text": "\\ud800"}\n', "no text"),
        ("c.jsonl", b"\xff\xff{", "cannot be read"),
        ("c.json", b"[" * 100_000, "nested too deeply"),
        ("c.json", b"7", "expected a list"),
        ("c.json", b'{"images": [], "licenses": []}', "no COCO captions file"),
        ("c.json", b'{"images": [7], "annotations": []}', "no whole COCO"),
        ("c.json", b'{"images": [], "annotations": [{"id": 1, "image_id": 2, "caption": "x"}]}', "no whole COCO"),
        ("c.json", b'{"images": null, "annotations": null}', "no whole COCO"),
        ("nowhere.json", None, "does not exist"),
    ],
)  # fmt: skip
def test_captions_of_another_shape_are_a_sentence(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImagePromptError, match=told):
        read_captions(tmp_path / name)


def test_captions_with_a_mark_of_windows_editors_and_those_that_are_no_text(tmp_path):
    (tmp_path / "cat.txt").write_bytes(b"\xef\xbb\xbfa cat\r\nan animal\r\n")
    assert read_captions(tmp_path) == {"cat": ("a cat", "an animal")}
    (tmp_path / "dog.txt").write_bytes(b"un caf\xe9")
    with pytest.raises(SettingError, match=r"dog\.txt cannot be read.*UTF-8"):
        read_captions(tmp_path)


# --- numbers and names on the command line and in workflows --------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--count", "0"], "count is 0"),
        (["--count", "-4"], "count is -4"),
        (["--count", "1000000000"], "count is 1000000000"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", str(2**64)], "seed is 1844"),
        (["--first", "0"], "--first is 0"),
        (["--first", "-1"], "--first is -1"),
        (["--patience", "nan"], "--patience is nan"),
        (["--patience", "inf"], "--patience is inf"),
        (["--patience", "0"], "--patience is 0"),
        (["--set", "3.cfg=nan"], "3.cfg is nan"),
        (["--set", "3.cfg=-inf"], "3.cfg is -inf"),
        (["--set", "3.cfg=1e400"], "3.cfg is inf"),
        (["--set", f"3.cfg={'9' * 6000}"], "3.cfg is inf"),
        (["--set", "3.cfg"], "has no value"),
        (["--set", "3.cfg=1", "--set", "3.cfg=2"], "given twice"),
        (["--server", "ftp://x"], "no address"),
        (["--out", "\0"], "could not be written"),
        (["--references", "a\0b"], "no picture in"),
        (["--workflow", "a\0b"], "cannot be read"),
    ],
)
def test_numbers_and_names_that_cannot_work_are_a_sentence(references, tmp_path, caplog, more, told):
    run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
    with serving(Script()) as script:
        run += [
            "--out",
            str(tmp_path / "made"),
            *(["--server", script.address] if "--server" not in more else []),
        ]
        assert cli.main([*run, *more]) == 1
        assert not [path for path in script.asked if path.startswith("/prompt")]
    assert told in sentence(caplog.messages[-1])
    assert not list((tmp_path / "made").glob("*"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--device", "cuda:99"], "cannot be used"),
        (["--device", "toaster"], "cannot be used"),
        (["--device", "meta"], "cannot be used"),
        (["--parameters", "m=nan"], "neither a number nor a file"),
        (["--parameters", "m=²"], "neither a number nor a file"),
        (["--parameters", "other=7"], "no method here"),
        (["--prefix", "a\0b"], "plain text"),
        (["--clip", "\0"], "could not be loaded"),
        (["--clip", "../../x"], "could not be loaded"),
        (["m={made}"], "given twice"),
        (["={made}"], "has no name"),
        (["--out", "x" * 300], "too long"),
    ],
)
def test_scoring_with_what_cannot_work_is_a_sentence(references, tmp_path, clip, caplog, more, told):
    made = painted(tmp_path / "made", "cat_0.png")
    more = [each.format(made=made) for each in more]
    assert score(references, tmp_path / "out", clip, f"m={made}", *more) == 1
    assert told in sentence(caplog.messages[-1])


def test_numbers_of_a_workflow_are_finite(tmp_path):
    for value in ("NaN", "-Infinity", "1e400"):
        text = json.dumps(GRAPH).replace("7.5", value)
        with pytest.raises(SettingError, match=r"flow\.json: 3\.cfg is "):
            read_workflow(workflow(tmp_path, text))
        nested = json.dumps(GRAPH).replace("7.5", f'{{"curve": [1, {value}]}}')
        with pytest.raises(SettingError, match=r"flow\.json: 3\.cfg is "):
            read_workflow(workflow(tmp_path, nested))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", '{"1": {"class_type": "X"}}', '{"1": {"class_type": 7, "inputs": {}}}', "[" * 99_999,
     '{"1": {"class_type": "X", "inputs": []}}', '{"prompt": null}', '{"1": null}'],
)  # fmt: skip
def test_workflows_of_any_other_shape_are_a_sentence(tmp_path, text):
    with pytest.raises(ImagePromptError) as failure:
        read_workflow(workflow(tmp_path, text))
    sentence(str(failure.value))


def test_what_is_set_keeps_its_kind(tmp_path):
    given = {"2.text": "nan", "3.steps": "30", "3.cfg": "2.5", "3.add_noise": "False", "1.image": "7"}
    graph = read_workflow(workflow(tmp_path), given | {"3.seed": "{seed}"}).filled("x.png", "", 9)
    assert graph["2"]["inputs"]["text"] == "nan"
    assert graph["3"]["inputs"] == {"seed": 9, "steps": 30, "cfg": 2.5, "add_noise": False}


def test_references_of_one_name_are_refused_before_anything_is_made(references, tmp_path, caplog):
    painted(references, "more/cat.jpg")
    with serving(Script()) as script:
        run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
        assert cli.main([*run, "--out", str(tmp_path / "made"), "--server", script.address]) == 1
        assert "several references are called cat" in caplog.text
        assert script.asked == []


# --- disks ---------------------------------------------------------------------------------------------------------


def results(references, made, clip):
    groups = match(references, made).groups
    return evaluate("m", groups, Embeddings(Clip(clip)))


def test_method_names_become_names_of_files(references, tmp_path, clip):
    one = results(references, painted(tmp_path / "made", "cat_0.png"), clip)
    names = ["a/b", "a:b", "..\\c", "d\0e", "\ud800", "x" * 300, "猫" * 100, "p|q\nr"]
    write([replace(one, name=name) for name in names], tmp_path / "out")
    sheets = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert len(sheets) == len(names)
    assert not [name for name in sheets if set(name) & set('<>:"/\\|?*')]
    assert "p\\|q\\nr" in (tmp_path / "out" / "scores.md").read_text().replace("\\\\n", "\\n")


@contextmanager
def files_of_at_most(room: int, monkeypatch):
    """As a disk that is full after so many bytes; what is printed goes to memory meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with monkeypatch.context() as patched:
        for name in ("stdout", "stderr"):
            patched.setattr(sys, name, io.StringIO())
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("room", [0, 1, 50, 1000, 5000])
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing_half(
    references, tmp_path, room, monkeypatch, caplog
):
    made = tmp_path / "made"
    noise = io.BytesIO()
    Image.effect_noise((100, 100), 60).convert("RGB").save(noise, "PNG")
    assert len(noise.getvalue()) > 5000
    with serving(Script({"/view": hostile.say(noise.getvalue())})) as script:
        run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
        run += ["--out", str(made), "--server", script.address, "--count", "1"]
        with files_of_at_most(room, monkeypatch):
            assert cli.main(run) == 1
        assert "could not be written" in sentence(caplog.messages[-1])
        assert list(made.iterdir()) == []
        assert cli.main(run) == 0
    assert len(list(made.iterdir())) == 4


@pytest.mark.parametrize("room", [0, 20, 200, 1000, 3000])
def test_scores_on_a_disk_that_takes_no_more(references, tmp_path, clip, monkeypatch, room):
    """Each file is the old one or the new one, whole."""
    one = results(references, painted(tmp_path / "made", "cat_0.png", "dog_0.png"), clip)
    other = replace(one, name="another method")
    contents = []
    for result in (one, other):
        write([result], tmp_path / "out")
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    write([one], tmp_path / "out")
    with files_of_at_most(room, monkeypatch), pytest.raises(WriteError) as failure:
        write([other], tmp_path / "out")
    assert "could not be written" in sentence(str(failure.value))
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() in [content.get(path.name) for content in contents]


class Never:
    address = "nobody"

    def upload(self, picture, name):
        raise AssertionError("asked before the disk was looked at")

    pictures = upload


def plan_jobs(references: Path, folder: Path) -> list[running.GenerationJob]:
    return running.plan_jobs(sorted(references.glob("*.png")), {}, 1, 0, folder)


def test_a_folder_that_takes_no_files_stops_the_run_before_anything_is_made(references, tmp_path):
    flow = Workflow("m", GRAPH)
    for folder in (Path("/proc/made"), tmp_path / "flow.json" / "made", tmp_path / ("x" * 300), Path("a\0b")):
        workflow(tmp_path)
        with pytest.raises(WriteError) as failure:
            running.run(flow, plan_jobs(references, folder), [Never()])
        sentence(str(failure.value))


def test_a_name_that_is_too_long_stops_the_run_before_anything_is_made(references, tmp_path):
    painted(references, "n" * 250 + ".png")
    with pytest.raises(WriteError, match="too long"):
        running.run(Workflow("m", GRAPH), plan_jobs(references, tmp_path / "made"), [Never()])


def test_names_that_are_no_text_are_made_and_scored(references, tmp_path, clip, capsys):
    odd = os.fsencode(references) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((references / "cat.png").read_bytes())
    run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references), "--count", "1"]
    with serving(Script()) as script:
        assert cli.main([*run, "--out", str(tmp_path / "made"), "--server", script.address]) == 0
    assert len(list((tmp_path / "made").iterdir())) == 5
    assert score(references, tmp_path / "out", clip, f"m={tmp_path / 'made'}") == 0
    assert "caf\\udce9" in (tmp_path / "out" / "scores.csv").read_text()


def test_pictures_that_an_earlier_run_left_damaged_are_made_again(references, tmp_path, caplog):
    made = tmp_path / "made"
    todo, flow = plan_jobs(references, made), Workflow("m", GRAPH)
    made.mkdir()
    whole = hostile.png((60, 60))
    (made / "cat_0.png").write_bytes(whole[:-20])
    (made / "dog_0.png").write_bytes(b"")
    (made / "owl_0.png").write_bytes(whole[:70] + bytes([whole[70] ^ 255]) + whole[71:])
    (made / "yak_0.png").write_bytes(whole)
    (made / "yak_0.unfinished").write_bytes(whole[:9])
    with serving(Script()) as script:
        assert running.run(flow, todo, [Server(script.address)]).made == 3
    for name in ("cat", "dog", "owl"):
        assert f"{name}_0.png is made again" in caplog.text
        assert Image.open(made / f"{name}_0.png").size == (24, 16)
    assert (made / "yak_0.png").read_bytes() == whole


def test_killed_at_any_moment_the_next_run_goes_on(references, tmp_path):
    made, moments = tmp_path / "made", random.Random(7)

    def slowly(handler: hostile.Handler) -> None:
        time.sleep(0.1)
        handler.send(hostile.png((300, 300)))

    with serving(Script({"/view": slowly})) as script:
        run = [*COMMAND, "generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
        run += ["--out", str(made), "--server", script.address, "--count", "6"]
        kept: set[bytes] = set()
        for _ in range(3):
            process = subprocess.Popen(run, stderr=subprocess.DEVNULL)
            asked = len(script.asked)
            while len(script.asked) == asked and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.1, 0.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            pictures = list(made.glob("*.png"))
            assert all(Image.open(path).convert("RGB").size == (300, 300) for path in pictures)
            assert kept <= {path.name for path in pictures}
            kept = {path.name for path in pictures}
        assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    assert len(list(made.glob("*.png"))) == 24


# --- the node ------------------------------------------------------------------------------------------------------


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
