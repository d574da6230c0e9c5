"""The training command: config file and flags in; adapter, losses, plot, samples out; mistakes told."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import webdataset
from helpers.training import TinyBase
from image_prompt.host import base_models, folders
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.training import command as cli
from image_prompt.training import loop
from image_prompt.training.pictures import find_pictures
from PIL import Image
from support import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent.parent


def picture(seed: int, size=(96, 64)) -> Image.Image:
    values = tiny.picture(seed, size[1], size[0])[0]
    return Image.fromarray((values * 255).round().to(torch.uint8).numpy())


def encoded(seed: int, **more) -> bytes:
    file = io.BytesIO()
    picture(seed, **more).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "pictures"
    (made / "deeper").mkdir(parents=True)
    for n in range(3):
        picture(n).save(made / f"{n}.png")
        (made / f"{n}.txt").write_text(f"caption {n}\n")
    picture(3, (64, 96)).save(made / "deeper" / "tall.webp")
    (made / "broken.jpg").write_bytes(b"<html>")
    return made


@pytest.fixture
def ready(monkeypatch, encoder):
    """The command with a small base model in the place of files."""
    made = TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)
    monkeypatch.setattr(base_models, "load_base", lambda *_: made)
    monkeypatch.setattr(folders, "model_path", lambda kind, name: name)
    monkeypatch.setattr(cli, "require_model", lambda *_: None)
    return made


def command(folder, out, *more):
    given = [
        "--checkpoint",
        "tiny",
        "--clip-vision",
        "tiny",
        "--data",
        str(folder),
        "--out",
        str(out),
        "--size",
        "64",
    ]
    return cli.main([*given, "--batch-size", "2", "--steps", "4", "--every", "2", *more])


def test_a_folder_becomes_an_adapter_with_losses_plot_and_samples(folder, tmp_path, ready, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    sampled = ["--samples-every", "4", "--samples", "2", "--sample-steps", "2"]
    assert command(folder, out, *sampled, "--tensorboard", "--buckets") == 0
    assert read_checkpoint(out / "adapter-000004.safetensors").shapes["image_proj.proj.weight"][0] == 4 * 768
    lines = (out / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss,rate,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert Image.open(out / "losses.png").size == (880, 495)
    sheets = [Image.open(out / f"samples-{step:06d}.png") for step in (0, 4)]
    assert sheets[0].size == sheets[1].size
    assert sheets[0].tobytes() != sheets[1].tobytes()
    assert list((out / "tensorboard").iterdir())
    assert "4 pictures; 1 without a caption; 1 broken and left out: broken.jpg" in caplog.text
    assert "parameters, from step 0 of 4" in caplog.text


def test_accelerates_trackers_get_every_step(folder, tmp_path, ready):
    held = ["--held-out", str(folder), "--held-out-every", "2", "--held-out-batches", "1"]
    assert command(folder, tmp_path / "out", "--trackers", "tensorboard", *held) == 0
    read = EventAccumulator(str(tmp_path / "out" / "logs" / "image-prompt")).Reload()
    steps = {name: [event.step for event in read.Scalars(name)] for name in read.Tags()["scalars"]}
    every = [1, 2, 3, 4]
    assert steps == {"loss": every, "learning_rate": every, "seconds": every, "held_out_loss": [2, 4]}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("tensorboard,none-such", "names none-such; accelerate has"),
        ("aim", "aim, whose package is not installed"),
    ],
)
def test_trackers_that_cannot_be_are_told_before_models_are_loaded(
    folder, tmp_path, ready, monkeypatch, caplog, names, told
):
    monkeypatch.setitem(sys.modules, "aim", None)
    monkeypatch.setattr(base_models, "load_base", lambda *_: pytest.fail("loaded"))
    assert command(folder, tmp_path / "out", "--trackers", names) == 1
    assert told in caplog.text


def test_held_out_pictures_have_their_image_prompts_by_the_same_rule(folder, tmp_path, ready, caplog):
    held_out, rule = tmp_path / "held out", ["--reference", "{stem}.png"]
    held_out.mkdir()
    picture(9).save(held_out / "9.webp")
    held = ["--held-out", str(held_out), "--held-out-every", "2", "--held-out-batches", "1"]
    assert command(folder, tmp_path / "out", *rule, *held) == 1
    assert "9.png is not there" in caplog.text
    picture(10).save(held_out / "9.png")
    assert command(folder, tmp_path / "out", *rule, *held) == 0
    lines = (tmp_path / "out" / "held-out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2", "4"]


def test_it_goes_on_where_it_stopped(folder, tmp_path, ready, monkeypatch):
    def run(out, *more):
        assert command(folder, out, *more) == 0
        return read_checkpoint(out / "adapter-000004.safetensors").state_dict()

    whole = run(tmp_path / "whole")
    assert command(folder, tmp_path / "parts", "--steps", "3") == 0
    parts = run(tmp_path / "parts")
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())
    files = [(tmp_path / each / "losses.csv").read_text().splitlines() for each in ("whole", "parts")]
    # all but how long each step took
    whole_rows, parts_rows = ([line.rpartition(",")[0] for line in lines] for lines in files)
    assert whole_rows == parts_rows


def test_ctrl_c_saves_the_steps_done(folder, tmp_path, ready, monkeypatch, caplog):
    caplog.set_level("INFO")
    step, before = loop.Trainer._step, signal.getsignal(signal.SIGINT)

    def and_ctrl_c(trainer):
        made = step(trainer)
        if trainer.number == 3:
            signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(loop.Trainer, "_step", and_ctrl_c)
    assert command(folder, tmp_path / "out", "--steps", "9") == 130
    assert (tmp_path / "out" / "adapter-000003.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopping after this step" in caplog.text


def test_a_second_ctrl_c_stops_at_once_without_a_traceback(folder, tmp_path, ready, monkeypatch):
    from image_prompt import __main__ as start

    step = loop.Trainer._step

    def and_ctrl_c_twice(trainer):
        made = step(trainer)
        if trainer.number == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(loop.Trainer, "_step", and_ctrl_c_twice)
    given = ["--checkpoint", "tiny", "--clip-vision", "tiny", "--data", str(folder), "--steps", "9"]
    given += ["--size", "64", "--batch-size", "2", "--out", str(tmp_path / "out")]
    assert start.main(["train", *given]) == 130
    assert (tmp_path / "out" / "adapter-000003.safetensors").is_file()


def test_a_config_file_says_the_same_and_flags_win(folder, tmp_path, ready):
    config = tmp_path / "train.yaml"
    settings = {
        "checkpoint": "tiny",
        "clip_vision": "tiny",
        "data": str(folder),
        "out": str(tmp_path / "out"),
    }
    lines = [f"{name}: {value}" for name, value in settings.items()]
    config.write_text(
        "\n".join([*lines, "size: 64", "batch-size: 2", "steps: 9", "learning_rate: 1e-3", "cache: none"])
    )
    assert cli.main(["--config", str(config), "--steps", "1"]) == 0
    state = json.loads((tmp_path / "out" / "state-000001" / "about.json").read_text())
    assert (state["recipe"]["learning_rate"], state["recipe"]["batch_size"]) == (1e-3, 2)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--size", "100"], "multiple of 64"),
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--checkpoint", ""], "checkpoint is missing"),
        (["--config", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_mistakes_are_told_in_a_sentence(folder, tmp_path, ready, caplog, more, told):
    assert command(folder, tmp_path / "out", *more) == 1
    assert told in caplog.text
    assert "Traceback" not in caplog.text
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_in_the_file_is_told(tmp_path, caplog):
    config = tmp_path / "train.yaml"
    config.write_text("checkpoint: a\nclip_vision: b\ndata: c\nlerning_rate: 1\n")
    assert cli.main(["--config", str(config)]) == 1
    assert "has no lerning_rate" in caplog.text


def test_the_command_starts_from_its_place(tmp_path):
    """In a process of its own, from another folder; help needs no ComfyUI."""
    done = subprocess.run(
        [sys.executable, str(ROOT), "train", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--drop-image" in done.stdout


# --- lists and shards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_lists_name_pictures_relative_to_themselves(folder, kind):
    rows = [{"image_file": "0.png", "text": "a, b"}, {"image_file": "deeper/tall.webp", "text": "c"}]
    path = folder / f"list.{kind}"
    path.write_text(
        {
            "jsonl": "\n".join(json.dumps(row) for row in rows),
            "json": json.dumps(rows),
            "csv": 'image_file,text\n0.png,"a, b"\ndeeper/tall.webp,c\n',
        }[kind]
    )
    found = find_pictures(path)
    assert [(record.name, record.caption) for record in found.records] == [
        ("0.png", "a, b"),
        ("deeper/tall.webp", "c"),
    ]
    assert list(found.sizes) == [(64, 96), (96, 64)]


def test_a_listed_picture_that_is_not_there_is_left_out(folder):
    path = folder / "list.csv"
    path.write_text("file_name,caption\n0.png,a\ngone.png,b\n")
    found = find_pictures(path)
    assert (len(found), list(found.left_out)) == (1, ["gone.png"])


def test_shards_as_webdataset_writes_them(tmp_path):
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"shard-{number}.tar")) as shard:
            for n in range(3):
                caption = {"txt": f"{number}.{n}"} if number else {"json": {"caption": f"{number}.{n}"}}
                shard.write({"__key__": f"a/sample{n}", "jpg": encoded(3 * number + n), **caption})
    found = find_pictures(tmp_path)
    assert [record.caption for record in found.records] == [f"{s}.{n}" for s in range(2) for n in range(3)]
    assert found.picture(4).shape == (1, 64, 96, 3)
    assert len(find_pictures(tmp_path / "shard-*.tar")) == 6
    with tarfile.open(tmp_path / "shard-0.tar") as tar:
        assert len(tar.getmembers()) == 6


def test_a_picture_that_a_camera_laid_on_its_side_stands_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, (96, 64)).save(tmp_path / "side.jpg", exif=exif)
    found = find_pictures(tmp_path)
    assert list(found.sizes) == [(96, 64)]
    assert found.picture(0).shape == (1, 96, 64, 3)
