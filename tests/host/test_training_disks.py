"""Disks that are full, read-only or do not take a name: one sentence, nothing half-written, and the run goes on later."""

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.quick_trainer import quick, weights
from image_prompt.ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from image_prompt.ipadapter_core.errors import WriteError
from image_prompt.ipadapter_core.training.export import save_adapter
from image_prompt.training.cache import Disk
from image_prompt.training.callbacks import Callback, Step, TensorBoard
from image_prompt.training.loop import Output
from image_prompt.training.losses import Losses
from image_prompt.training.samples import Samples
from image_prompt.training.states import read_about, states
from PIL import Image

SIZES = [0, 300, 1000, 2500, 8000]  # bytes that a file may have; a state's largest has 14,000


@contextmanager
def room(size: int):
    """No file may grow beyond so many bytes: what a disk does that is full at that place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "could not be written" in text
    assert text.encode("utf-8")
    return text


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_that_is_full_while_a_state_is_written(tmp_path, size):
    whole = weights(_run(tmp_path / "whole", 6))
    folder = tmp_path / "out"
    _run(folder, 3)
    before = visible(folder)
    made = quick(folder, steps=6)
    assert made.resume() == 3
    with room(size), pytest.raises(WriteError) as error:
        made.run(Callback())
    one_sentence(error)
    assert visible(folder) == before
    for state in states(folder):
        read_about(state)
    again = _run(folder, 6)
    assert torch.equal(weights(again), whole)


def _run(folder, steps):
    made = quick(folder, steps=steps)
    made.resume()
    made.run(Callback())
    return made


def test_a_disk_without_space_is_called_full(tmp_path, monkeypatch):
    """What torch raises of a full disk, which does not say why."""
    made = quick(tmp_path, steps=2)

    def full(folder):
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")

    monkeypatch.setattr(made.accelerator, "save_state", full)
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("image_prompt.training.states.shutil.disk_usage", lambda path: usage)
    with pytest.raises(WriteError, match="the disk is full"):
        made.run(Callback())
    assert visible(tmp_path) == []


ADAPTER = Checkpoint("x", {"proj.weight": torch.randn(40, 40)}, {"1.to_k_ip.weight": torch.randn(20, 20)})


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_export(tmp_path, size, suffix):
    path = tmp_path / f"a{suffix}"
    save_adapter(ADAPTER, path)
    old = path.read_bytes()
    with room(size), pytest.raises(WriteError) as error:
        save_adapter(ADAPTER, path, dtype=torch.float64)
    assert "too large" in one_sentence(error)
    assert path.read_bytes() == old
    assert visible(tmp_path) == [path.name]


def test_a_row_of_losses_is_written_whole_or_not_at_all(tmp_path):
    losses = Losses(tmp_path)
    losses.on_step_end(Step(1, 9, 0.5, 0.1))
    before = losses.path.read_bytes()
    for more in (0, 1, 3):
        with room(len(before) + more), pytest.raises(WriteError) as error:
            losses.on_step_end(Step(2, 9, 0.25, 0.1))
        one_sentence(error)
        assert losses.path.read_bytes() == before


def test_losses_of_a_run_that_was_killed_while_it_wrote(tmp_path):
    (tmp_path / "losses.csv").write_bytes(b"step,loss,rate\r\n1,0.5,0.1\r\n2,0.25,0.1\r\n3,\0\0\n4,0.1")
    losses = Losses(tmp_path, 2)
    assert [point[:2] for point in losses.curve.points] == [(1, 0.5), (2, 0.25)]
    assert losses.path.read_text() == "step,loss,rate,seconds\n1,0.5,0.1,nan\n2,0.25,0.1,nan\n"


def test_losses_of_an_earlier_run_are_kept(tmp_path):
    Losses(tmp_path).on_step_end(Step(1, 9, 0.5, 0.1))
    assert Losses(tmp_path).curve.points == []
    earlier = (tmp_path / "losses-earlier.csv").read_text()
    assert earlier == "step,loss,rate,seconds\n1,0.5,0.1,0.000\n"


def test_plots_samples_and_caches(tmp_path):
    class Sampler:
        def sample(self, adapter, request):
            return torch.rand(1, 64, 64, 3)

    from image_prompt.ipadapter_core.training.base import SampleRequest

    losses = Losses(tmp_path)
    losses.on_step_end(Step(1, 1, 0.5, 0.1))
    samples = Samples(
        Sampler(),
        quick(tmp_path, steps=1).trainable,
        [SampleRequest(torch.rand(1, 64, 64, 3), "a", 64, 0)],
        tmp_path,
        1,
    )
    store = Disk(tmp_path / "cache")
    rows = {"latents": torch.randn(1, 4, 8, 8)}
    writes = {
        "losses.png": lambda: losses.on_save(tmp_path, 1),
        "samples-000001.png": lambda: samples.on_step_end(Step(1, 1, 0.5, 0.1)),
        "cache/ab/abc.safetensors": lambda: store.__setitem__("abc", rows),
    }
    for name, write in writes.items():
        for size in SIZES[:3]:
            with room(size), pytest.raises(WriteError) as error:
                write()
            one_sentence(error)
            assert not (tmp_path / name).exists()
        write()
        assert (tmp_path / name).is_file()
    Image.open(tmp_path / "samples-000001.png").verify()
    assert torch.equal(store["abc"]["latents"], rows["latents"])
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_a_damaged_cache_file_is_made_again(tmp_path):
    store = Disk(tmp_path)
    store["abc"] = {"latents": torch.ones(1)}
    path = tmp_path / "ab" / "abc.safetensors"
    for damaged in (b"", path.read_bytes()[:-2], b"\xff" * 100):
        path.write_bytes(damaged)
        assert store.get("abc") is None


def test_tensorboard_on_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(WriteError) as error:
        TensorBoard(tmp_path, 0)
    one_sentence(error)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "x" * 250, "x" * 300])
def test_names_that_no_disk_takes_are_told_before_anything_is_encoded(tmp_path, name):
    with pytest.raises(WriteError) as error:
        Output(tmp_path, name).require_writable(3)
    one_sentence(error)
    assert visible(tmp_path) == []


def test_a_name_that_just_fits(tmp_path):
    name = "x" * (255 - len("-000003-ema.safetensors") - 1)
    Output(tmp_path, name).require_writable(3)
    assert visible(tmp_path) == []
    save_adapter(ADAPTER, tmp_path / f"{name}-000003-ema.safetensors")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, number):
    """root may write everywhere, so the system's answer is put in."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WriteError) as error:
        Output(tmp_path).require_writable(3)
    one_sentence(error)


def test_an_adapter_survives_being_written(tmp_path):
    read = read_checkpoint(save_adapter(ADAPTER, tmp_path / "a.bin")).state_dict()
    assert torch.equal(read["image_proj.proj.weight"], ADAPTER.image_proj["proj.weight"])
