"""Full disks, odd names of files, runs that are killed: one sentence, and the next run goes on."""

import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import hostile
from helpers.evaluation import COMMAND, GRAPH, painted, score, sentence, workflow
from helpers.hostile import Script, serving
from image_prompt.evaluation import command as cli
from image_prompt.evaluation import running
from image_prompt.evaluation.about import About
from image_prompt.evaluation.clip import Clip
from image_prompt.evaluation.matching import match
from image_prompt.evaluation.report import write
from image_prompt.evaluation.scoring import Embeddings, evaluate
from image_prompt.evaluation.servers import Server
from image_prompt.evaluation.workflow import Workflow
from image_prompt.ipadapter_core.errors import WriteError
from PIL import Image

ABOUT = About("tiny", "", "first")


def results(references, made, clip):
    groups = match(references, made).groups
    return evaluate("m", groups, Embeddings(Clip(clip)))


def test_method_names_become_names_of_files(references, tmp_path, clip):
    one = results(references, painted(tmp_path / "made", "cat_0.png"), clip)
    names = ["a/b", "a:b", "..\\c", "d\0e", "\ud800", "x" * 300, "猫" * 100, "p|q\nr"]
    write([replace(one, name=name) for name in names], tmp_path / "out", ABOUT)
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
    assert len(list(made.glob("*.png"))) == 4


@pytest.mark.parametrize("room", [0, 20, 200, 1000, 3000])
def test_scores_on_a_disk_that_takes_no_more(references, tmp_path, clip, monkeypatch, room):
    """Each file is the old one or the new one, whole."""
    one = results(references, painted(tmp_path / "made", "cat_0.png", "dog_0.png"), clip)
    other = replace(one, name="another method")
    contents = []
    for result in (one, other):
        write([result], tmp_path / "out", ABOUT)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    write([one], tmp_path / "out", ABOUT)
    with files_of_at_most(room, monkeypatch), pytest.raises(WriteError) as failure:
        write([other], tmp_path / "out", ABOUT)
    assert "could not be written" in sentence(str(failure.value))
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() in [content.get(path.name) for content in contents]


class Never:
    address = "nobody"

    def upload(self, picture, name):
        raise AssertionError("asked before the disk was looked at")

    pictures = upload


def plan_jobs(references: Path, folder: Path) -> list[running.GenerationJob]:
    return running.plan_jobs(sorted(references.glob("*.png")), {}, running.Seeds(1, 0), folder)


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
    assert len(list((tmp_path / "made").glob("*.png"))) == 5
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
