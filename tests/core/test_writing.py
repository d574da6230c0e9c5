"""Whole or not at all under the final name; a disk that refuses is one sentence."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_prompt.ipadapter_core.errors import WriteError, shown
from image_prompt.ipadapter_core.files.writing import (
    explaining,
    make_folder,
    new_folder,
    replacing,
    write_bytes,
    write_text,
)
from safetensors import SafetensorError
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]


def one_sentence(error: WriteError) -> str:
    text = str(error)
    text.encode("utf-8")
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 450
    return text


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as part:
        part.write_text("half")
        assert not path.exists()
        assert part.parent == path.parent
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError):
        _write(path, _fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_rights_of_a_new_file_are_those_of_any_other(tmp_path: Path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "taken/a", "taken/deep/a", "a folder"])
def test_a_name_that_cannot_be_is_one_sentence_and_leaves_nothing(name: str, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "a folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    writers = [_folder, lambda path: write_bytes(path, b"x")]
    for write in writers[name == "a folder" :]:  # into a folder that is there, files are moved
        with pytest.raises(WriteError) as caught:
            write(tmp_path / name)
        one_sentence(caught.value)
        assert sorted(os.listdir(tmp_path)) == before


def _write(path: Path, write: Callable[[Path], object]) -> None:
    with replacing(path, RuntimeError, SafetensorError) as part:
        part.write_bytes(b"half")
        write(part)


def _folder(path: Path, write: Callable[[Path], object] = str) -> None:
    with new_folder(path) as part:
        (part / "x").write_text("x")
        write(part)


def _fail(_: Path) -> None:
    raise KeyError("of the caller's own")


def test_a_full_disk_is_said_as_such_whoever_writes(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.fail("this system has no /dev/full")

    def python(_: Path) -> None:
        with open("/dev/full", "wb") as file:
            file.write(bytes(100_000))

    def torches(_: Path) -> None:
        with open("/dev/full", "wb") as file:
            torch.save(torch.zeros(100_000), file)

    def failing(_: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for write in (python, torches, failing):
        path = tmp_path / "a.bin"
        with pytest.raises(WriteError, match="disk is full") as caught:
            _write(path, write)
        assert "Free some space" in one_sentence(caught.value)
        assert os.listdir(tmp_path) == []


def test_errors_that_are_no_disks_stay_what_they_are(tmp_path: Path):
    with pytest.raises(ValueError, match="of the caller") as caught, explaining(tmp_path):
        raise ValueError("of the caller")
    assert type(caught.value) is ValueError


def test_a_folder_appears_whole_and_fills_up_one_that_is_there(tmp_path: Path):
    path = tmp_path / "pack"
    with pytest.raises(KeyError):
        _folder(path, _fail)
    assert os.listdir(tmp_path) == []
    make_folder(path)
    write_text(path / "a", "half of an older try")
    write_text(path / "mine", "stays")
    make_folder(tmp_path / ".pack.part")  # of a process that was killed
    write_text(tmp_path / ".pack.part" / "junk", "old")
    with new_folder(path) as part:
        write_text(part / "a", "whole")
        write_text(part / "deep" / "b", "whole")
        assert (path / "a").read_text() == "half of an older try"
    assert {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()} == {
        "a": "whole",
        "deep/b": "whole",
        "mine": "stays",
    }
    assert os.listdir(tmp_path) == ["pack"]


def test_killed_in_the_middle_the_old_file_stands(tmp_path: Path):
    """And what the killed process left goes when it is a day old."""
    path = tmp_path / "a.txt"
    write_text(path, "old")
    program = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}]
from ipadapter_core.files.writing import replacing
with replacing({str(path)!r}) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_text() == "old"
    left = [name for name in os.listdir(tmp_path) if name != "a.txt"]
    assert len(left) == 1
    write_text(path, "new")
    assert len(os.listdir(tmp_path)) == 2  # it may still be written by another process
    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / left[0], (yesterday, yesterday))
    write_text(path, "newer")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_libraries_write_to_the_place_as_to_any_path(tmp_path: Path):
    with replacing(tmp_path / "a.safetensors", SafetensorError) as part:
        save_file({"a": torch.zeros(3)}, part)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_names_are_shown_in_one_short_line():
    text = shown("a\nb\0\ud800é日" + "x" * 500)
    text.encode("utf-8")
    assert text.startswith("a\\nb\\x00\\ud800é日")
    assert len(text) < 220
    assert "\n" not in text
