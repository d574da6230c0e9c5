"""The index: each file is inspected once; warm, no model file is opened."""

import hashlib
import json
import os
import socket
from pathlib import Path

import pytest
import torch
from core.outlines import VIT_H, encoder, write_outline
from helpers.reads import bytes_read, ends, opened_in
from image_prompt.doctor.report import build
from image_prompt.doctor.text import as_text
from image_prompt.ipadapter_core.errors import CheckpointError
from image_prompt.model_files import inspection
from image_prompt.model_files.index import Index
from image_prompt.model_files.inspection import FileKind, inspect_file
from safetensors.torch import save_file
from support.layouts import LAYOUTS

HEADERS = 400_000  # bytes, more than any header here has


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for n in range(200):
        table = encoder(*VIT_H) if n % 10 == 9 else LAYOUTS[n % len(LAYOUTS)].table
        write_outline(folder / f"{n % 7}" / f"model {n}.safetensors", table)
    return folder


def folders(models: Path) -> dict[str, list[Path]]:
    return {"ipadapter": [models]}


def test_two_hundred_files_are_known_the_second_time_without_opening_one(models: Path, tmp_path: Path):
    store = tmp_path / "user" / "index.json"
    with opened_in(models) as cold:
        first = Index(store).scan(folders(models))
    with opened_in(models) as warm, bytes_read() as count:
        again = Index(store).scan(folders(models))
    assert len(set(cold)) == len(first) == 200
    assert warm == []
    assert again == first
    assert count[0] <= store.stat().st_size + 4096  # the index itself
    assert {entry.info.kind for entry in first} == {FileKind.ADAPTER, FileKind.ENCODER}


def test_of_a_file_no_more_than_its_header_is_read(tmp_path: Path):
    path = write_outline(tmp_path / "x.safetensors", LAYOUTS[8].table)
    Index().scan({"ipadapter": [tmp_path]})  # what is imported on first use is not counted
    with bytes_read() as count:
        Index().scan({"ipadapter": [tmp_path]})
    assert path.stat().st_size > 800e6
    assert count[0] < HEADERS


def test_a_changed_file_is_inspected_again_and_only_that(models: Path, tmp_path: Path):
    store = tmp_path / "index.json"
    Index(store).scan(folders(models))
    path = write_outline(models / "3" / "model 3.safetensors", encoder(*VIT_H))
    os.utime(path, ns=(1, 1))
    with opened_in(models) as opened:
        entries = Index(store).scan(folders(models))
    assert set(opened) == {str(path)}
    assert next(entry.info.kind for entry in entries if entry.path == path) is FileKind.ENCODER


def test_the_same_size_with_another_time_is_inspected_again(tmp_path: Path):
    path = write_outline(tmp_path / "m" / "x.safetensors", LAYOUTS[0].table)
    index = Index()
    index.scan({"ipadapter": [tmp_path / "m"]})
    os.utime(path, ns=(5, 5))
    with opened_in(tmp_path) as opened:
        index.scan({"ipadapter": [tmp_path / "m"]})
    assert opened


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": "0", "files": {}}',
        "rows",
        "infos",
        "\x00" * 64,
    ],
)
def test_a_damaged_index_is_built_anew(damage: str, tmp_path: Path):
    store = tmp_path / "index.json"
    path = write_outline(tmp_path / "m" / "x.safetensors", LAYOUTS[0].table)
    first = Index(store).scan({"ipadapter": [tmp_path / "m"]})
    whole = json.loads(store.read_text())
    if damage == "rows":
        whole["files"] = {str(path): 3}
    elif damage == "infos":
        whole["files"][str(path)]["info"] = {"kind": "adapter", "text": "x", "adapter": {"variant": 1}}
    store.write_text(json.dumps(whole) if damage in ("rows", "infos") else damage)
    assert Index(store).scan({"ipadapter": [tmp_path / "m"]}) == first
    with opened_in(tmp_path / "m") as opened:
        Index(store).scan({"ipadapter": [tmp_path / "m"]})
    assert opened == []


def test_sha256_is_computed_once_and_remembered(tmp_path: Path):
    path = write_outline(tmp_path / "m" / "x.safetensors", {"nonsense": (9,)})
    store = tmp_path / "index.json"
    index = Index(store)
    entry = index.scan({"ipadapter": [tmp_path / "m"]})[0]
    assert json.loads(store.read_text())["files"][str(path)]["sha256"] is None
    assert index.sha256(entry) == hashlib.sha256(path.read_bytes()).hexdigest()
    later = Index(store)
    with opened_in(tmp_path / "m") as opened:
        assert later.sha256(later.scan({"ipadapter": [tmp_path / "m"]})[0]) == index.sha256(entry)
    assert opened == []
    write_outline(path, {"nonsense": (10,)})
    changed = later.scan({"ipadapter": [tmp_path / "m"]})[0]
    assert later.sha256(changed) == hashlib.sha256(path.read_bytes()).hexdigest() != index.sha256(entry)


def test_folders_below_and_links_are_followed_without_going_round(tmp_path: Path):
    models = tmp_path / "m"
    write_outline(models / "sd15" / "deep" / "a.safetensors", LAYOUTS[0].table)
    write_outline(tmp_path / "elsewhere" / "b.bin", LAYOUTS[0].table)
    write_outline(models / ".cache" / "hidden.safetensors", LAYOUTS[0].table)
    (models / "notes.txt").write_text("no model")
    (models / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (models / "sd15" / "round").symlink_to(models, target_is_directory=True)
    (models / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    names = [entry.name for entry in Index().scan({"ipadapter": [models, models / "sd15"]})]
    assert sorted(names) == ["linked/b.bin", "sd15/deep/a.safetensors"]


def test_files_that_went_are_forgotten(tmp_path: Path):
    store = tmp_path / "index.json"
    path = write_outline(tmp_path / "m" / "x.safetensors", LAYOUTS[0].table)
    Index(store).scan({"ipadapter": [tmp_path / "m"]})
    path.unlink()
    write_outline(tmp_path / "m" / "y.safetensors", LAYOUTS[0].table)
    Index(store).scan({"ipadapter": [tmp_path / "m"]})
    assert list(json.loads(store.read_text())["files"]) == [str(tmp_path / "m" / "y.safetensors")]


def test_where_the_index_cannot_be_written_all_else_works(tmp_path: Path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    write_outline(tmp_path / "m" / "x.safetensors", LAYOUTS[0].table)
    assert len(Index(tmp_path / "taken" / "index.json").scan({"ipadapter": [tmp_path / "m"]})) == 1
    assert not list(tmp_path.glob("index.json*"))


def test_what_is_no_file_is_left_out_and_waits_for_nobody(tmp_path: Path):
    models = tmp_path / "m"
    write_outline(models / "a.safetensors", LAYOUTS[0].table)
    os.mkfifo(models / "pipe.safetensors")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(models / "socket.bin"))
    (models / "folder.safetensors").mkdir()
    (models / "round.safetensors").symlink_to(models / "round.safetensors")
    (models / "device.safetensors").symlink_to("/dev/zero")
    index = Index(tmp_path / "index.json")
    with ends():
        assert [entry.name for entry in index.scan({"ipadapter": [models]})] == ["a.safetensors"]
        for name in ("pipe", "device", "folder", "round", "nothing"):
            assert inspect_file(models / f"{name}.safetensors").kind is FileKind.BROKEN
            with pytest.raises(CheckpointError):
                index.inspect(models / f"{name}.safetensors")
    server.close()


def test_names_that_are_no_text_are_kept_and_shown(tmp_path: Path):
    models = tmp_path / "m"
    write_outline(models / "a.safetensors", LAYOUTS[0].table)
    os.rename(models / "a.safetensors", os.fsencode(models) + b"/\xff\n.safetensors")
    store = tmp_path / "index.json"
    first = Index(store).scan({"ipadapter": [models]})
    with opened_in(models) as opened:
        assert Index(store).scan({"ipadapter": [models]}) == first
    assert opened == []
    text = as_text(build(first, [], Index(store).sha256))
    assert "\\udcff\\n.safetensors" in text
    text.encode("utf-8")


def test_a_file_that_cannot_be_read_has_no_sha256_and_stops_nothing(tmp_path: Path):
    path = write_outline(tmp_path / "m" / "x.safetensors", {"nonsense": (9,)})
    index = Index()
    entry = index.scan({"ipadapter": [tmp_path / "m"]})[0]
    path.unlink()
    path.mkdir()
    assert index.sha256(entry) == ""


def test_files_of_one_layout_that_one_tool_wrote_are_inspected_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A trainer's own save: it sorts the keys, so that only the data differ. Others, and cut ones, are looked at."""
    table = {
        key: (8, shape[-1]) if key.startswith("ip_adapter.") else shape
        for key, shape in LAYOUTS[0].table.items()
    }
    folder, inspected = tmp_path / "ipadapter", []
    folder.mkdir()
    for n in range(3):
        save_file(
            {key: torch.full(shape, float(n)) for key, shape in table.items()}, folder / f"a{n}.safetensors"
        )
    whole = (folder / "a0.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    save_file({key: torch.zeros(shape).half() for key, shape in table.items()}, folder / "half.safetensors")

    def counted(path: Path):
        inspected.append(path.name)
        return inspect_file(path)

    monkeypatch.setattr(inspection, "inspect_file", counted)
    found = {entry.name: entry.info for entry in Index().scan({"ipadapter": [folder]})}
    assert inspected == ["a0.safetensors", "cut.safetensors", "half.safetensors"]
    assert found == {path.name: inspect_file(path) for path in folder.iterdir()}
    assert found["cut.safetensors"].kind is FileKind.BROKEN
    assert found["a2.safetensors"].kind is found["half.safetensors"].kind is FileKind.ADAPTER
