"""The doctor without ComfyUI: its command line, and downloads from a server on this machine."""

import hashlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core.commands import started
from core.doctored import ROOT, comfyui_folder
from core.hub import Hub, serving
from core.outlines import VIT_H, encoder, write_outline
from core.small import flat, nested
from image_prompt.doctor.command import main, parser
from image_prompt.doctor.download import download
from image_prompt.doctor.folders import find_folders
from image_prompt.ipadapter_core.errors import MissingFileError, RemoteError
from image_prompt.model_files.catalog import catalog_row
from image_prompt.model_files.released import Intent, KnownFile

CONTENT = bytes(range(256)) * 4000
KNOWN = replace(
    catalog_row("ip-adapter_sd15.safetensors"), sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
)
ADDRESS = "/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors"
NO_NETWORK = "http://127.0.0.1:9"


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    return comfyui_folder(tmp_path)


# --- folders -----------------------------------------------------------------------------------------------------


def test_comfyui_is_found_around_the_pack(comfyui: Path):
    searched = find_folders(comfyui / "custom_nodes" / "image-prompt")
    assert searched.models == comfyui / "models"
    assert searched.folders["clip_vision"] == [comfyui / "models" / "clip_vision"]


def test_a_place_without_models_is_an_error_that_names_the_options(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"is not a folder\. Give its place with --comfyui PATH"):
        find_folders(ROOT, tmp_path)


def test_folders_of_other_packs_and_of_extra_model_paths_are_searched(comfyui: Path, tmp_path: Path):
    more = [comfyui / "models" / "ip-adapter", comfyui / "models" / "xlabs" / "ipadapters"]
    more.append(comfyui / "custom_nodes" / "ComfyUI_IPAdapter_plus" / "models")
    shared = tmp_path / "shared"
    extra = [shared / "adapters", shared / "more", comfyui / "beside"]
    for folder in more + extra:
        folder.mkdir(parents=True)
    (comfyui / "extra_model_paths.yaml").write_text(
        f"a1111:\n  base_path: {shared}\n  ipadapter: |\n    adapters\n    more\n  checkpoints: x\n"
        "here:\n  ipadapter: beside\nempty:\n"
    )
    searched = find_folders(ROOT, comfyui)
    assert searched.folders["ipadapter"] == [comfyui / "models" / "ipadapter", *extra, *more]
    assert searched.notes == []


def test_a_damaged_extra_model_paths_is_a_note(comfyui: Path):
    (comfyui / "extra_model_paths.yaml").write_text("a: [")
    notes = find_folders(ROOT, comfyui).notes
    assert len(notes) == 1
    assert "extra_model_paths.yaml could not be read" in notes[0]


# --- command line ------------------------------------------------------------------------------------------------


def test_a_python_without_torch_gets_the_one_to_take(comfyui: Path):
    done = started(comfyui, ["torch"])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "has no torch. Run this with ComfyUI's own Python" in done.stderr


def test_it_runs_from_comfyuis_folder_without_comfyui(comfyui: Path):
    """In a process in which importing the host and what only it needs raises."""
    (comfyui / "user").mkdir()
    hosts = ("comfy", "folder_paths", "nodes", "torchvision", "transformers", "huggingface_hub")
    done = started(comfyui, hosts, "--goal", "standard-vit-bigg", "--family", "SDXL")
    assert done.returncode == 1, done.stderr  # one file is broken
    assert "ipadapter/sd15/a.safetensors" in done.stdout
    assert "standard, ViT-bigG on SDXL: ready" in done.stdout
    assert (comfyui / "user" / "image_prompt" / "index.json").is_file()


def test_all_well_is_exit_0_and_json_is_whole(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (comfyui / "models" / "ipadapter" / "page.safetensors").unlink()
    monkeypatch.setitem(sys.modules, "yaml", None)
    (comfyui / "extra_model_paths.yaml").write_text("a: 1")
    assert main(["--comfyui", str(comfyui), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [line["state"] for line in report["rows"]] == ["ok", "encoder missing", "ok", "ok"]
    assert report["folders"]["loras"] == [str(comfyui / "models" / "loras")]
    assert report["notes"][0].endswith("pip install pyyaml")


def test_no_network_is_one_sentence_and_exit_1(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_ENDPOINT", NO_NETWORK)
    assert main(["--comfyui", str(comfyui), "--download", "ip-adapter_sd15"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("ip-adapter_sd15.safetensors could not be downloaded from http://127.0.0.1:9/h94")


def test_a_download_by_name_lands_in_its_folder_and_shows_the_licence(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stream = io.BytesIO()
    torch.save(nested(flat()), stream)
    path = "/Kwai-Kolors/Kolors-IP-Adapter-FaceID-Plus/resolve/main/ipa-faceid-plus.bin"
    with serving(Hub({path: stream.getvalue()})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert main(["--comfyui", str(comfyui), "--download", "kolors-ip-adapter-faceid-plus"]) == 0
    target = comfyui / "models" / "ipadapter" / "Kolors-IP-Adapter-FaceID-Plus.bin"
    assert target.read_bytes() == stream.getvalue()
    said = capsys.readouterr().err
    assert "non-commercial" in said
    assert re.fullmatch(r"Kolors-IP-Adapter-FaceID-Plus.bin: \d+ MB of \d+ MB", said.splitlines()[-1])


def test_an_unknown_name_is_refused(comfyui: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--comfyui", str(comfyui), "--download", "nonsense"]) == 1
    assert (
        capsys.readouterr().err
        == "'nonsense' is no released file that is known here. --list shows those that are.\n"
    )


def test_a_models_folder_that_is_none_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--models", str(tmp_path / "none")]) == 1
    assert "models folder was not found" in capsys.readouterr().err


def test_the_list_needs_no_models_folder(capsys: pytest.CaptureFixture[str]):
    assert main(["--list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(
        re.search(r"ip-adapter-faceid_sd15.bin +97 MB +ipadapter, non-commercial$", row) for row in rows
    )
    assert not any("https" in row or len(row) > 110 for row in rows)
    assert main(["--list", "--long"]) == 0
    assert (
        "ip-adapter-faceid_sd15.bin (97 MB, non-commercial research only) from https"
        in capsys.readouterr().out
    )


def test_a_goal_is_typed_as_a_word_or_as_the_node_writes_it(capsys: pytest.CaptureFixture[str]):
    for typed in ("standard-vit-bigg", "standard, ViT-bigG", "Standard ViT-bigG"):
        assert parser().parse_args(["--goal", typed]).goal is Intent.BIG_ENCODER
    with pytest.raises(SystemExit):
        parser().parse_args(["--goal", "compositon"])
    assert "'compositon' is no goal. Did you mean composition?" in capsys.readouterr().err


def test_get_downloads_all_that_the_goal_needs_and_reports_anew(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    models = comfyui / "models"
    (models / "ipadapter" / "page.safetensors").unlink()
    fetched: list[str] = []

    def get(known: KnownFile, _models: Path, *_: object) -> Path:
        fetched.append(known.name)
        return write_outline(models / known.folder / known.name, encoder(*VIT_H))

    monkeypatch.setattr("image_prompt.doctor.command.download", get)
    assert main(["--comfyui", str(comfyui), "--goal", "plus", "--family", "SD1.5", "--get"]) == 0
    assert fetched == ["CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"]
    assert "plus on SD1.5: ready" in capsys.readouterr().out


def test_get_asks_for_one_goal_on_one_family(comfyui: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--comfyui", str(comfyui), "--get"]) == 1
    assert "one goal needs on one family" in capsys.readouterr().err
    assert main(["--comfyui", str(comfyui), "--goal", "composition", "--get"]) == 1
    assert "Missing are: composition on SD1.5; composition on SDXL." in capsys.readouterr().err


# --- downloads ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({ADDRESS: CONTENT})) as server:
        yield server


def fetch(
    hub: Hub, models: Path, known: KnownFile = KNOWN, seen: list[tuple[int, int]] | None = None
) -> Path:
    progress = (lambda done, total: seen.append((done, total))) if seen is not None else None
    return download(known, models, progress, hub.address)


def test_a_file_comes_whole_with_progress_and_is_left_alone_the_next_time(hub: Hub, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    path = fetch(hub, tmp_path, seen=seen)
    assert path == tmp_path / "ipadapter" / "ip-adapter_sd15.safetensors"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(hub, tmp_path) == path
    assert hub.asked == [(ADDRESS, "")]


def test_a_connection_that_breaks_off_is_taken_up_where_it_stopped(hub: Hub, tmp_path: Path):
    hub.cut_after = [300_000, 200_000]
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.asked == [(ADDRESS, ""), (ADDRESS, "bytes=300000-"), (ADDRESS, "bytes=500000-")]


def test_a_download_that_was_given_up_is_resumed_by_the_next(hub: Hub, tmp_path: Path):
    part = tmp_path / "ipadapter" / "ip-adapter_sd15.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:777])
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.asked == [(ADDRESS, "bytes=777-")]
    assert not part.exists()


def test_a_part_that_is_whole_already_is_only_checked(hub: Hub, tmp_path: Path):
    part = tmp_path / "ipadapter" / "ip-adapter_sd15.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_starts_over(hub: Hub, tmp_path: Path):
    hub.ranges, hub.cut_after = False, [300_000]
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_put_aside_and_both_hashes_are_named(hub: Hub, tmp_path: Path):
    hub.files[ADDRESS] = b"something else"
    with pytest.raises(RemoteError) as caught:
        fetch(hub, tmp_path)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert str(KNOWN.sha256) in str(caught.value)
    folder = tmp_path / "ipadapter"
    assert [path.name for path in folder.iterdir()] == ["ip-adapter_sd15.safetensors.wrong"]


def test_another_file_of_the_name_is_kept_aside(hub: Hub, tmp_path: Path):
    folder = tmp_path / "ipadapter"
    folder.mkdir()
    (folder / KNOWN.name).write_bytes(b"mine")
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert (folder / f"{KNOWN.name}.old").read_bytes() == b"mine"


def test_a_face_model_is_unpacked_whatever_folder_its_zip_has(hub: Hub, tmp_path: Path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("antelopev2/scrfd_10g_bnkps.onnx", b"detector")
        packed.writestr("antelopev2/glintr100.onnx", b"recogniser")
        packed.writestr("../../escape.onnx", b"below its folder all the same")
    hub.files["/antelopev2.zip"] = stream.getvalue()
    known = catalog_row("antelopev2.zip")
    known = replace(
        known, link=f"{hub.address}/antelopev2.zip", sha256=hashlib.sha256(stream.getvalue()).hexdigest()
    )
    folder = fetch(hub, tmp_path, known)
    assert folder == tmp_path / "insightface" / "models" / "antelopev2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "escape.onnx",
        "glintr100.onnx",
        "scrfd_10g_bnkps.onnx",
    ]
    assert not list(tmp_path.rglob("*.zip"))
    assert fetch(hub, tmp_path, known) == folder
    assert len(hub.asked) == 1
