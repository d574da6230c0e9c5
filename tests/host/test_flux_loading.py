"""Auto Loader and Doctor for the connected transformer: the adapter, its encoder, or what to get."""

import comfy.clip_vision
import folder_paths
import pytest
import torch
from core.outlines import VIT_L, encoder, siglip, write_outline
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import MissingFileError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from safetensors.torch import save_file
from support import transformer, transformer_layouts
from support.tiny_flux import CONTEXT, RELEASED, WIDTH, lively_

V1, V2 = (transformer_layouts.xlabs(RELEASED[0], WIDTH, CONTEXT, 768, tokens) for tokens in (4, 16))
INSTANTX = transformer_layouts.instantx(sum(RELEASED), WIDTH, CONTEXT, 1152, 128)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The host's models folder, temporary, with CLIP ViT-L and SigLIP under names that say nothing."""
    for name in ("ipadapter", "clip_vision", "loras"):
        paths = ([str(tmp_path / name)], set(folders.EXTENSIONS))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(comfy.clip_vision, "load", lambda path: path)
    write_outline(tmp_path / "clip_vision" / "a.safetensors", encoder(*VIT_L))
    write_outline(tmp_path / "clip_vision" / "b.safetensors", siglip())
    return tmp_path


@pytest.fixture(scope="module", params=["Flux.1", "Chroma"])
def model(request):
    made = transformer.stand_in(*RELEASED)
    if request.param == "Chroma":
        made.model.diffusion_model.distilled_guidance_layer = torch.nn.Identity()
    return request.param, made


def install(models, name, table):
    tensors = lively_({key: torch.empty(shape) for key, shape in table.items()}, 3)
    save_file(tensors, models / "ipadapter" / name)


def load(model, intent="plus"):
    return NODE_CLASS_MAPPINGS["ImagePromptAutoLoader"]().load(model, intent)


def test_the_default_goal_takes_v2_and_its_encoder(models, model):
    family, patcher = model
    install(models, "one.safetensors", V1)
    install(models, "two.safetensors", V2)
    _, ipadapter, clip_vision, report = load(patcher)
    assert (ipadapter.name, ipadapter.spec.tokens) == ("two.safetensors", 16)
    assert clip_vision == str(models / "clip_vision" / "a.safetensors")
    assert report.startswith(
        f"{family}, plus: two.safetensors is the plus adapter for Flux.1 by its contents"
    )
    assert ("no adapter was trained for Chroma" in report) is (family == "Chroma")
    assert load(patcher, "standard")[1].name == "one.safetensors"


def test_instantx_takes_the_encoder_with_the_pooling_head(models, model):
    install(models, "mine.safetensors", INSTANTX)
    write_outline(models / "clip_vision" / "a headless one.safetensors", siglip(head=False))
    _, ipadapter, clip_vision, _ = load(model[1])
    assert ipadapter.spec.variant is Variant.INSTANTX
    assert clip_vision == str(models / "clip_vision" / "b.safetensors")


def test_what_is_missing_is_named_with_its_source(models, model):
    with pytest.raises(MissingFileError, match=r"flux-ip-adapter-v2\.safetensors \(1,057 MB\) from https://"):
        load(model[1])


def test_the_doctor_checks_the_goal_for_the_connected_model(models, model):
    family, patcher = model
    report = NODE_CLASS_MAPPINGS["ImagePromptDoctor"]().examine("plus", model=patcher)["result"][0]
    assert family in report
    assert "flux-ip-adapter-v2.safetensors" in report
    assert "SDXL" not in report


def test_a_model_with_other_blocks_has_no_files(models):
    with pytest.raises(MissingFileError, match=r"no released adapter serves 'plus' on"):
        load(transformer.stand_in(8, 24))
