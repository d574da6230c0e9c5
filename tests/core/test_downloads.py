"""A bad server gives no more than was published, never half of one version and half of another, and one sentence."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from core.hub import Hub, serving
from core.small import flat, nested
from helpers import face_graphs
from image_prompt.doctor import download as downloads
from image_prompt.doctor import transfer
from image_prompt.doctor.command import main
from image_prompt.doctor.download import download, unpacked
from image_prompt.ipadapter_core.errors import RemoteError, WriteError
from image_prompt.model_files.catalog import catalog_row
from image_prompt.model_files.released import KnownFile

ROOT = Path(__file__).parents[2]


def pickled(seed: int) -> bytes:
    stream = io.BytesIO()
    torch.save(nested(flat(seed=seed)), stream)
    return stream.getvalue()


CONTENT = pickled(1)
ADDRESS = "/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors"
KNOWN = replace(
    catalog_row("ip-adapter_sd15.safetensors"), sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
)
UNCONFIRMED = replace(KNOWN, sha256=None, size=None, published_mb=len(CONTENT) / 1e6)
each_knowledge = pytest.mark.parametrize("known", [KNOWN, UNCONFIRMED], ids=["known", "unconfirmed"])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(transfer.time, "sleep", lambda _: None)
    with serving(Hub({ADDRESS: CONTENT})) as server:
        yield server


def fetch(hub: Hub, models: Path, known: KnownFile = KNOWN) -> Path:
    return download(known, models, None, hub.address)


def files_in(models: Path) -> list[str]:
    return sorted(path.name for path in (models / "ipadapter").iterdir())


@each_knowledge
def test_never_more_than_was_published(known: KnownFile, hub: Hub, tmp_path: Path):
    hub.endless = True
    with pytest.raises(RemoteError, match="not the published file"):
        fetch(hub, tmp_path, known)
    assert files_in(tmp_path) == []
    hub.endless = False
    hub.files[ADDRESS] = CONTENT + bytes(10**6)
    with pytest.raises(RemoteError, match="not the published file"):
        fetch(hub, tmp_path, known)
    assert files_in(tmp_path) == []


@each_knowledge
@pytest.mark.parametrize(
    "content_range", [None, "bytes 0-9/10", "bytes 1-2/{size}", "nonsense", "bytes {start}-9/1", ""]
)
def test_a_206_of_another_part_is_not_put_behind_ours(
    content_range: str | None, known: KnownFile, hub: Hub, tmp_path: Path
):
    hub.cut_after = [10_000]
    hub.content_range = content_range and content_range.format(size=len(CONTENT), start=10_000)
    if content_range in (None, "") and (content_range is None or known is KNOWN):
        assert fetch(hub, tmp_path, known).read_bytes() == CONTENT
        return
    hub.cut_after = [10_000] * 9  # it never comes whole at once
    with pytest.raises(RemoteError, match=r"does not go on where it stopped|connection broke off"):
        fetch(hub, tmp_path, known)
    assert known.name not in files_in(tmp_path)


@each_knowledge
def test_a_file_that_changed_meanwhile_starts_anew(known: KnownFile, hub: Hub, tmp_path: Path):
    """Without a published hash nothing else would show that the halves are of two versions."""
    part = tmp_path / "ipadapter" / f"{known.name}.part"
    part.parent.mkdir()
    hub.cut_after = [10_000] + [0] * 5
    with pytest.raises(RemoteError, match="10,000 bytes are kept"):
        fetch(hub, tmp_path, known)
    part.write_bytes(pickled(2)[:10_000])
    hub.etag = '"another"'
    hub.cut_after = []
    assert fetch(hub, tmp_path, known).read_bytes() == CONTENT
    assert files_in(tmp_path) == [known.name]


def test_a_part_of_no_known_version_is_not_continued(hub: Hub, tmp_path: Path):
    part = tmp_path / "ipadapter" / f"{KNOWN.name}.part"
    part.parent.mkdir()
    part.write_bytes(b"of an older program")
    assert fetch(hub, tmp_path, UNCONFIRMED).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_discarded(hub: Hub, tmp_path: Path):
    part = tmp_path / "ipadapter" / f"{KNOWN.name}.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(CONTENT) + 10**6))
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_page_that_is_not_there_names_the_answer(hub: Hub, tmp_path: Path):
    hub.files.clear()
    with pytest.raises(RemoteError, match=r"answered 404 .*Look at https://huggingface\.co/h94/IP-Adapter"):
        fetch(hub, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors*"))


def test_without_a_published_hash_a_web_page_is_still_refused(hub: Hub, tmp_path: Path):
    hub.files[ADDRESS] = b"<html>Sign in</html>"
    with pytest.raises(RemoteError, match=r"came broken: .* is a web page"):
        fetch(hub, tmp_path, replace(KNOWN, sha256=None))
    assert list((tmp_path / "ipadapter").iterdir()) == []


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,x", "gopher://a/b", "javascript:1"]
)
def test_a_redirect_to_an_odd_address_is_refused(address: str, hub: Hub, tmp_path: Path):
    hub.redirect = address
    with pytest.raises(RemoteError) as caught:
        fetch(hub, tmp_path)
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == []


def test_a_disk_without_room_is_said_before_anything_comes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(WriteError, match=r"needs 0 MB in .* 0 MB are free"):
        fetch(hub, tmp_path)
    assert hub.asked == []


def test_a_disk_that_fills_up_is_said_as_such_and_asked_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And not taken for a broken connection, which is tried again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_write", full)
    with pytest.raises(WriteError, match="disk is full"):
        fetch(hub, tmp_path)
    assert len(hub.asked) == 1
    assert KNOWN.name not in files_in(tmp_path)


def test_a_folder_that_cannot_be_is_one_sentence(hub: Hub, tmp_path: Path):
    (tmp_path / "ipadapter").write_text("a file")
    with pytest.raises(WriteError, match="could not be written"):
        fetch(hub, tmp_path)


# --- face models -------------------------------------------------------------------------------------------------


def packed(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def graphs(tmp_path: Path) -> dict[str, bytes]:
    """Whole ONNX files under the names of the pack."""
    face_graphs.toy_pack(tmp_path / "toy")
    toys = sorted((tmp_path / "toy").rglob("*.onnx"))
    return {
        name: toy.read_bytes() for name, toy in zip(catalog_row("buffalo_l.zip").members, toys, strict=False)
    }


def pack(hub: Hub, content: bytes) -> KnownFile:
    hub.files["/pack.zip"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(
        catalog_row("buffalo_l.zip"), link=f"{hub.address}/pack.zip", sha256=sha256, size=len(content)
    )


def test_a_half_unpacked_pack_is_not_installed_and_is_mended(
    hub: Hub, tmp_path: Path, graphs: dict[str, bytes]
):
    known = pack(hub, packed(graphs))
    models = tmp_path / "models"
    folder = models / "insightface" / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    for name, content in graphs.items():
        (folder / name).write_bytes(content)
    assert unpacked(known, folder.parent)
    for half in (graphs[known.members[0]][:-7], b""):
        (folder / known.members[0]).write_bytes(half)
        (folder / "mine.txt").write_text("stays")
        assert not unpacked(known, folder.parent)
        assert download(known, models) == folder
        assert (folder / known.members[0]).read_bytes() == graphs[known.members[0]]
        assert (folder / "mine.txt").read_text() == "stays"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["buffalo_l"]


def test_stopped_while_it_is_unpacked_nothing_stands_under_its_name(
    hub: Hub, tmp_path: Path, graphs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    known, models = pack(hub, packed(graphs)), tmp_path / "models"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_extract", stop)
        with pytest.raises(KeyboardInterrupt):
            download(known, models)
    folder = models / "insightface" / "models"
    assert sorted(path.name for path in folder.iterdir()) == ["buffalo_l.zip"]
    assert download(known, models) == folder / "buffalo_l"
    assert sorted(path.name for path in folder.iterdir()) == ["buffalo_l"]


BAD_PACKS = {
    "a bomb": packed({"det_10g.onnx": bytes(50 * 2**20)}),
    "two of one name": packed({"a/det_10g.onnx": b"1", "b/det_10g.onnx": b"2"}),
    "a stream of a file": packed({"a.onnx:hidden.onnx": b"1"}),
    "no zip": b"PK no zip at all",
    "cut": packed({"det_10g.onnx": bytes(range(256)) * 400})[:-30],
}


@pytest.mark.parametrize("case", BAD_PACKS)
def test_a_bad_pack_is_one_sentence_and_leaves_nothing(case: str, hub: Hub, tmp_path: Path):
    known, models = pack(hub, BAD_PACKS[case]), tmp_path / "models"
    with pytest.raises(RemoteError, match="no whole zip") as caught:
        download(known, models)
    assert "\n" not in str(caught.value)
    assert not list(models.rglob("*.onnx"))
    assert not (models / "insightface" / "models" / "buffalo_l").exists()


def test_names_in_a_pack_stay_in_its_folder(hub: Hub, tmp_path: Path):
    members = {
        f"{prefix}x{n}.onnx": b"1" for n, prefix in enumerate(("../../", "/", "C:\\\\", "..\\\\..\\\\"))
    }
    known, models = pack(hub, packed(members)), tmp_path / "models"
    folder = download(known, models)
    assert sorted(path.name for path in folder.iterdir()) == ["x0.onnx", "x1.onnx", "x2.onnx", "x3.onnx"]
    assert len(list(tmp_path.rglob("*.onnx"))) == 4


# --- what the doctor writes --------------------------------------------------------------------------------------


@pytest.fixture
def odd_name(tmp_path: Path) -> Path:
    """A models folder with a file whose name is no text."""
    folder = tmp_path / "models" / "ipadapter"
    folder.mkdir(parents=True)
    with open(os.fsencode(folder) + b"/\xff\xc3\xa9.safetensors", "wb") as file:
        file.write(b"no model")
    return tmp_path / "models"


def test_a_name_that_the_terminal_cannot_show_is_escaped(odd_name: Path, monkeypatch: pytest.MonkeyPatch):
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, "ascii"))
    assert main(["--models", str(odd_name)]) == 1
    assert b"\\udcff" in said.getvalue()


def test_a_report_for_which_there_is_no_room_is_one_sentence(odd_name: Path):
    """In a process of its own, which writes what is left once more when it ends."""
    command = [sys.executable, str(ROOT), "doctor", "--models", str(odd_name)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("the report could not be written: the disk is full.")
    assert "Traceback" not in done.stderr
