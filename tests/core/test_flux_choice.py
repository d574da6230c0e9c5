"""Which files serve an intent on Flux.1 and Chroma, and what the doctor says of them."""

from pathlib import Path

import image_prompt
import pytest
from core.installed import TABLES, Installed, chosen, missing
from core.outlines import VIT_L, siglip, write_outline
from image_prompt.doctor import command
from image_prompt.doctor.report import build
from image_prompt.model_files.index import Index
from image_prompt.model_files.released import Intent


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


XLABS, XLABS2, INSTANTX = "ip_adapter", "ip_adapter v2", "ip-adapter"


@pytest.mark.parametrize("family", ["Flux.1", "Chroma"])
@pytest.mark.parametrize(
    ("there", "intent", "wanted"),
    [
        ((XLABS, XLABS2, INSTANTX), Intent.PLUS, XLABS2),
        ((XLABS, INSTANTX), Intent.PLUS, INSTANTX),
        ((XLABS, XLABS2, INSTANTX), Intent.STANDARD, XLABS),
        ((XLABS,), Intent.PLUS, XLABS),
        ((INSTANTX,), Intent.STANDARD, INSTANTX),
    ],
)
def test_a_transformer_is_served_by_what_is_there(family, there, intent, wanted, installed: Installed):
    """Few adapters were released: each goal prefers its own, and takes the others."""
    for n, layout in enumerate(there):
        installed.adapter(layout, f"a{n} {'wanted' if layout == wanted else 'other'}")
    installed.encoder(VIT_L, "l").siglip("b without", head=False).siglip("with")
    found = chosen(installed.resolve(family, intent))
    assert "wanted" in found.adapter.name
    assert found.encoder
    assert found.encoder.name.startswith("with" if wanted == INSTANTX else "l")
    assert installed.hashed == []
    assert ("no adapter was trained for Chroma" in found.reason) is (family == "Chroma")


def test_an_encoder_without_its_pooling_head_does_not_serve_instantx(installed: Installed):
    found = missing(installed.adapter(INSTANTX).siglip("headless", head=False).resolve("Flux.1", Intent.PLUS))
    assert [known.name for known in found.files] == ["sigclip_vision_patch14_384.safetensors"]
    assert "without its pooling head" in found.text


@pytest.mark.parametrize("intent", [Intent.PLUS, Intent.STANDARD])
@pytest.mark.parametrize("head", [True, False])
def test_sd35_is_served_by_its_adapter_with_any_siglip(head, intent, installed: Installed):
    """It reads the grid of tokens, for which the pooling head does not matter."""
    installed.adapter("ip-adapter for SD3.5", "sd").adapter(INSTANTX, "flux").siglip("any", head)
    found = chosen(installed.resolve("SD3.5 Large", intent))
    assert found.adapter.name.startswith("sd")
    assert found.encoder
    assert found.encoder.name.startswith("any")


def test_on_an_empty_disk_sd35_needs_its_adapter_and_siglip(installed: Installed):
    found = missing(installed.resolve("SD3.5 Large", Intent.PLUS))
    assert [known.name for known in found.files] == [
        "SD3.5-Large-IP-Adapter.bin",
        "sigclip_vision_patch14_384.safetensors",
    ]
    assert "Stability AI Community License" in found.text


def test_on_an_empty_disk_flux_needs_an_adapter_and_its_encoder(installed: Installed):
    found = missing(installed.resolve("Flux.1", Intent.PLUS))
    assert [known.name for known in found.files] == [
        "flux-ip-adapter-v2.safetensors",
        "clip-vit-large-patch14.safetensors",
    ]
    assert (
        "https://huggingface.co/XLabs-AI/flux-ip-adapter-v2/resolve/main/ip_adapter.safetensors" in found.text
    )


# --- the doctor ------------------------------------------------------------------------------------------------

ROOT = Path(image_prompt.__path__[0])


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A ComfyUI with this pack and no model file."""
    root = tmp_path / "ComfyUI"
    (root / "custom_nodes").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "custom_nodes" / "image-prompt").symlink_to(ROOT, target_is_directory=True)
    return root


def lines_of(comfyui: Path):
    index = Index()
    folders = {name: [comfyui / "models" / name] for name in ("ipadapter", "clip_vision")}
    return {line.file: line.cells[1:] for line in build(index.scan(folders), (), index.sha256).rows}


def test_the_table_says_which_encoder_serves_an_adapter_of_a_transformer(comfyui: Path):
    models = comfyui / "models"
    write_outline(models / "ipadapter" / "i.safetensors", TABLES[INSTANTX])
    write_outline(models / "clip_vision" / "headless.safetensors", siglip(head=False))
    lines = lines_of(comfyui)
    assert lines["ipadapter/i.safetensors"] == (
        "instantx adapter",
        "Flux.1",
        "SigLIP so400m/14-384",
        "encoder missing",
    )
    assert lines["clip_vision/headless.safetensors"][0].endswith("without its pooling head")
    write_outline(models / "clip_vision" / "s.safetensors", siglip())
    lines = lines_of(comfyui)
    assert lines["ipadapter/i.safetensors"][2:] == ("SigLIP so400m/14-384: s.safetensors", "ok")
    assert lines["clip_vision/s.safetensors"][0].endswith("with its pooling head")


@pytest.mark.parametrize("family", ["flux", "Flux.1", "FLUX 1", "chroma"])
def test_a_family_is_named_in_any_spelling_and_all_its_goals_are_checked(family, comfyui: Path, capsys):
    assert command.main(["--comfyui", str(comfyui), "--family", family]) == 1
    said = capsys.readouterr().out
    for words in ("standard on Flux.1 needs", "plus on Flux.1 needs", "flux-ip-adapter-v2.safetensors"):
        assert words in said
    assert "FLUX.1 dev licence, non-commercial" in said
    assert "SDXL needs" not in said


def test_an_unknown_family_is_refused(comfyui: Path, capsys):
    with pytest.raises(SystemExit):
        command.main(["--comfyui", str(comfyui), "--family", "pixart"])
    assert "'pixart' is none of: SD1.5, SDXL, Kolors, Flux.1" in capsys.readouterr().err


def test_get_downloads_what_the_goal_lacks(comfyui: Path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(command, "download", lambda known, *_: asked.append(known.name))
    command.main(["--comfyui", str(comfyui), "--goal", "plus", "--family", "flux", "--get"])
    assert asked == ["flux-ip-adapter-v2.safetensors", "clip-vit-large-patch14.safetensors"]


def test_get_needs_to_know_what_for(comfyui: Path, capsys):
    assert command.main(["--comfyui", str(comfyui), "--goal", "plus", "--get"]) == 1
    assert "--get downloads what one goal needs on one family" in capsys.readouterr().err
