"""The doctor's report: what each file is, and how that is written."""

import io
from pathlib import Path

import pytest
from core.doctored import ROOT, TABLES, comfyui_folder
from core.outlines import VIT_H, encoder, write_outline
from image_prompt.doctor.folders import find_folders
from image_prompt.doctor.report import build
from image_prompt.doctor.text import as_markdown, as_text, style_for
from image_prompt.model_files.index import Index
from image_prompt.model_files.released import Intent


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    return comfyui_folder(tmp_path)


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
    text = as_text(report)
    lines = text.splitlines()
    table = lines[: lines.index("")]
    assert set(table[1]) == {"-", " "}
    column = table[0].index("family")
    assert {line[column : column + 5].strip() for line in table[2:]} == {"SD1.5", "SDXL", ""}
    marks = {line.split()[1]: line[0] for line in table[2:] if line[0] != " "}
    assert marks["ipadapter/sd15/a.safetensors"] == marks["ipadapter/page.safetensors"] == "\u2717"
    assert marks["ipadapter/g.safetensors"] == "\u2713"
    assert "\u2717 page.safetensors is a web page or an error message" in text
    assert "\u2713 standard, ViT-bigG on SDXL: ready. g.safetensors is" in text
    assert "\u2717 plus on SD1.5 needs\n    CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors  (2.5 GB)" in text
    assert "Add --get to download" in text
    assert "https" not in text


def test_the_long_form_has_addresses_and_hashes(comfyui: Path):
    text = as_text(report_of(comfyui, ("SD1.5", Intent.PLUS)), long=True)
    assert "https://huggingface.co/h94/IP-Adapter/resolve/main/models/image_encoder" in text
    assert "sha256" in text


def test_no_line_is_wider_than_110_columns_and_nothing_is_cut(comfyui: Path):
    name = "a very long name " * 3 + "x" * 60
    write_outline(comfyui / "models" / "ipadapter" / f"{name}.safetensors", TABLES["ip-adapter-plus_sd15"])
    report = report_of(comfyui, *((family, goal) for family in ("SD1.5", "SDXL") for goal in Intent))
    text = as_text(report)
    assert max(map(len, text.splitlines())) <= 110
    table = text[: text.index("\nBroken")]
    assert table.count("x") >= 60


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_colours_on_a_terminal_only_and_letters_where_it_has_no_signs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = _Terminal(io.BytesIO(), "utf-8")
    assert style_for(terminal).mark(True) == "\033[32m\u2713\033[0m"
    assert style_for(io.TextIOWrapper(io.BytesIO(), "utf-8")).mark(False) == "\u2717"
    assert style_for(io.TextIOWrapper(io.BytesIO(), "cp1252")).mark(True) == "+"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_for(terminal).mark(None) == "\u00b7"


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
    text = as_text(build([], [], lambda _: ""))
    assert text.startswith("No model files were found.\n")
    assert "--goal standard --family SD1.5 --get" in text
