"""The doctor without ComfyUI: its report, its command line, and downloads from a server on this machine."""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import image_prompt
import pytest
import torch
from core.commands import started
from core.hub import Hub, serving
from core.outlines import FACE_LORAS, VIT_G, VIT_H, encoder, face_lora, write_outline
from core.small import flat, nested
from image_prompt.doctor.command import main
from image_prompt.doctor.download import download
from image_prompt.doctor.folders import find_folders
from image_prompt.doctor.report import as_lines, as_markdown, as_text, build
from image_prompt.ipadapter_core.errors import MissingFileError, RemoteError
from image_prompt.model_files.catalog import catalog_row
from image_prompt.model_files.index import Index
from image_prompt.model_files.released import Intent, KnownFile
from support.layouts import LAYOUTS

ROOT = Path(image_prompt.__path__[0])
TABLES = {layout.file: layout.table for layout in LAYOUTS}
CONTENT = bytes(range(256)) * 4000
KNOWN = replace(
    catalog_row("ip-adapter_sd15.safetensors"), sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
)
ADDRESS = "/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors"
NO_NETWORK = "http://127.0.0.1:9"


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A ComfyUI with this pack, two adapters, a wrong encoder, LoRAs and a broken file."""
    root = tmp_path / "ComfyUI"
    models = root / "models"
    (root / "custom_nodes").mkdir(parents=True)
    (root / "custom_nodes" / "image-prompt").symlink_to(ROOT, target_is_directory=True)
    write_outline(models / "ipadapter" / "sd15" / "a.safetensors", TABLES["ip-adapter-plus_sd15"])
    write_outline(models / "ipadapter" / "g.safetensors", TABLES["ip-adapter_sdxl"])
    write_outline(models / "clip_vision" / "big.safetensors", encoder(*VIT_G))
    write_outline(models / "loras" / "face.safetensors", FACE_LORAS["SD1.5"])
    write_outline(models / "loras" / "other.safetensors", face_lora(rank=8))
    (models / "ipadapter" / "page.safetensors").write_text("<!DOCTYPE html><title>Sign in</title>")
    return root


# --- report ------------------------------------------------------------------------------------------------------


def report_of(comfyui: Path, *goals: tuple[str, Intent]):
    searched, index = find_folders(ROOT, comfyui), Index()
    return build(index.scan(searched.folders), goals, index.sha256, folders=searched.folders)


def test_the_table_says_what_each_file_is_and_whether_its_encoder_is_there(comfyui: Path):
    cells = {line.file: line.cells[1:] for line in report_of(comfyui).rows}
    assert cells == {
        "ipadapter/sd15/a.safetensors": ("plus adapter", "SD1.5", "CLIP ViT-H/14", "encoder missing"),
        "ipadapter/g.safetensors": ("base adapter", "SDXL", "CLIP ViT-bigG/14: big.safetensors", "ok"),
        "ipadapter/page.safetensors": ("broken, see below", "", "", "broken"),
        "clip_vision/big.safetensors": ("encoder CLIP ViT-bigG/14, 224 pixels", "", "", "ok"),
        "loras/face.safetensors": ("FaceID LoRA", "SD1.5", "", "ok"),
    }


def test_for_a_file_in_the_wrong_folder_the_right_one_is_named(comfyui: Path):
    write_outline(comfyui / "models" / "ipadapter" / "h.safetensors", encoder(*VIT_H))
    states = {line.file: line.state for line in report_of(comfyui).rows}
    assert states["ipadapter/h.safetensors"] == "move it to models/clip_vision"
    assert states["ipadapter/sd15/a.safetensors"] == "encoder missing"


def test_plain_text_is_aligned_and_ends_with_causes_and_goals(comfyui: Path):
    report = report_of(comfyui, ("SDXL", Intent.BIG_ENCODER), ("SD1.5", Intent.PLUS))
    lines = as_text(report).splitlines()
    table = lines[: lines.index("")]
    assert set(table[1]) == {"-", " "}
    column = table[0].index("family")
    assert {line[column : column + 5].strip() for line in table[2:]} == {"SD1.5", "SDXL", ""}
    assert "- page.safetensors is a web page or an error message" in as_text(report)
    assert "- standard, ViT-bigG, SDXL: ready. g.safetensors is" in as_text(report)
    assert "- plus, SD1.5: for 'plus' on SD1.5 you need: CLIP-ViT-H-14" in as_text(report)


def test_the_narrow_form_has_a_line_for_each_file_and_the_goals_first(comfyui: Path):
    lines = as_lines(report_of(comfyui, ("SDXL", Intent.BIG_ENCODER))).splitlines()
    assert [line for line in lines if line.endswith(":")] == ["Broken:", "Goals:", "Files:"]
    assert "- ipadapter/g.safetensors: base adapter, SDXL, ok" in lines
    assert len(lines[lines.index("Files:") + 1 :]) == 5


def test_markdown_has_one_row_a_file_and_as_many_cells_in_each(comfyui: Path):
    lines = [line for line in as_markdown(report_of(comfyui)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 5
    assert {line.count("|") for line in lines} == {6}


def test_on_demand_a_file_of_a_released_name_is_compared_with_the_published_hash(comfyui: Path):
    adapters = comfyui / "models" / "ipadapter"
    write_outline(adapters / "ip-adapter_sd15.safetensors", TABLES["ip-adapter_sd15"])
    write_outline(
        adapters / "ip-adapter_sd15_light_v11.safetensors", TABLES["ip-adapter_sd15"]
    )  # published as .bin
    searched, index = find_folders(ROOT, comfyui), Index()
    entries = index.scan(searched.folders)
    assert as_text(build(entries, [], lambda _: pytest.fail("hashed unasked"))).count("sha256") == 0
    report = build(entries, [], lambda _: "0" * 64, verify=True)
    states = {line.file: line.state for line in report.rows}
    assert states["ipadapter/ip-adapter_sd15.safetensors"] == "wrong sha256, see below"
    assert states["ipadapter/ip-adapter_sd15_light_v11.safetensors"] == "encoder missing"
    assert any("expected 289b45f16d04" in text for text in report.broken)
    published = "289b45f16d043d0bf542e45831f971dcdaabe18b656f11e86d9dfba7e9ee3369"
    assert "wrong sha256" not in as_text(build(entries, [], lambda _: published, verify=True))


def test_an_empty_folder_is_said_to_be_empty():
    assert as_text(build([], [], lambda _: "")) == "No model files were found."


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
    done = started(comfyui, hosts, "--goal", "standard, ViT-bigG", "--family", "SDXL")
    assert done.returncode == 1, done.stderr  # one file is broken
    assert "ipadapter/sd15/a.safetensors" in done.stdout
    assert "standard, ViT-bigG, SDXL: ready" in done.stdout
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
    assert "MB" in said.splitlines()[-1]


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
    assert "ip-adapter-faceid_sd15.bin (97 MB, non-commercial research only)" in capsys.readouterr().out


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
