"""Image Prompt: Auto Loader and Load Adapter identify files; the one-node Image Prompt takes faces too."""

import logging
import sys
from types import SimpleNamespace

import comfy.clip_vision
import folder_paths
import pytest
import torch
from core.outlines import FACE_LORAS, VIT_H, encoder, write_outline
from helpers import face_graphs
from helpers.face_graphs import canvas
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import MissingFileError, SettingError, WrongEncoderError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from image_prompt.nodes.loaders import BY_CONTENT
from safetensors.torch import save_file
from support import layouts, tiny
from support.parity import call

KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """The host's models folder, temporary, with ViT-H under a name that says nothing, and toy face models."""
    for name in ("ipadapter", "clip_vision", "loras"):
        paths = ([str(tmp_path / name)], set(folders.EXTENSIONS))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"), raising=False)
    write_outline(tmp_path / "clip_vision" / "model.safetensors", encoder(*VIT_H))
    face_graphs.toy_pack(tmp_path / "insightface" / "models" / "buffalo_l")
    return tmp_path


@pytest.fixture
def loaded_encoder(monkeypatch):
    """The small encoder in place of 2.5 GB; the paths that were asked for."""
    asked = []
    monkeypatch.setattr(comfy.clip_vision, "load", lambda path: asked.append(path) or "an encoder")
    return asked


@pytest.fixture(scope="module")
def model():
    return tiny.host_model(tiny.SD15)


def install(models, name, image_proj, lora_rank=0):
    """An adapter for the small SD1.5 UNet."""
    widths = tiny.site_widths(tiny.SD15)
    table = image_proj | layouts.keys_values(widths, 768)
    table |= layouts.lora(widths, 768, lora_rank) if lora_rank else {}
    tensors = tiny.random_({key: torch.zeros(shape) for key, shape in table.items()}, seed=3)
    save_file(tensors, models / "ipadapter" / name)
    folder_paths.filename_list_cache.clear()


def load(model, intent, **more):
    node = NODE_CLASS_MAPPINGS["ImagePromptAutoLoader"]()
    return node.load(model, intent, **more)


PLUS = layouts.plus(1280, 768, 128, 2)
FACEID = layouts.faceid(768)


# --- auto loader -------------------------------------------------------------------------------------------------


def test_the_files_of_an_intent_are_found_whatever_they_are_called(models, model, loaded_encoder):
    install(models, "my plus.safetensors", PLUS)
    install(models, "other.safetensors", FACEID, lora_rank=4)
    steered, ipadapter, clip_vision, report = load(model, "plus")
    assert steered is model
    assert (ipadapter.name, ipadapter.spec.variant) == ("my plus.safetensors", Variant.PLUS)
    assert clip_vision == "an encoder"
    assert loaded_encoder == [str(models / "clip_vision" / "model.safetensors")]
    assert report.startswith("SD1.5, plus: my plus.safetensors is taken for the plus adapter")


def test_a_faceid_adapters_lora_is_on_the_model_and_no_encoder_is_loaded(models, model, loaded_encoder):
    install(models, "who.safetensors", FACEID, lora_rank=4)
    steered, ipadapter, clip_vision, report = load(model, "face identity", lora_strength=0.7)
    assert [patch[0] for patch in steered.patches[KEY]] == [0.7]
    assert ipadapter.spec.variant is Variant.FACEID
    assert clip_vision is None
    assert loaded_encoder == []
    assert "its LoRA is in the file" in report
    assert model.patches == {}


def test_a_separate_lora_is_put_on_where_the_adapter_has_none(models, model):
    install(models, "who.safetensors", FACEID)
    write_outline(models / "loras" / "ip-adapter-faceid_sd15_lora.safetensors", FACE_LORAS["SD1.5"])
    steered, *_, report = load(model, "face identity")
    assert "ip-adapter-faceid_sd15_lora.safetensors is its LoRA" in report
    assert steered is not model


def test_what_is_missing_is_named_with_address_folder_and_hash(model):
    with pytest.raises(MissingFileError) as caught:
        load(model, "plus")
    message = str(caught.value)
    assert (
        "https://huggingface.co/h94/IP-Adapter/resolve/main/models/ip-adapter-plus_sd15.safetensors"
        in message
    )
    assert "into models/ipadapter" in message
    assert "a1c250be40455cc61a43da1201ec3f1edaea71214865fb47f57927e06cbe4996" in message
    assert "98 MB" in message


def test_for_a_family_without_adapters_the_others_are_named():
    with pytest.raises(MissingFileError, match="no released adapter serves 'plus' on KOALA-700M"):
        load(tiny.host_model(tiny.KOALA), "plus")


def test_the_choice_stands_on_the_node_and_in_the_log(models, model, monkeypatch, caplog):
    install(models, "who.safetensors", FACEID, lora_rank=4)
    said = []
    instance = SimpleNamespace(send_progress_text=lambda text, node: said.append((node, text)))
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    caplog.set_level(logging.INFO)
    report = load(model, "face identity", node_id="7")[3]
    assert said == [("7", report)]
    assert report in caplog.text


# --- load adapter ------------------------------------------------------------------------------------------------


FACEID_PLUS = layouts.faceid_plus(1280, 768, heads=2, hidden=128)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ip-adapter-faceid-plusv2_sd15.bin", Variant.FACEID_PLUS_V2),
        ("ip-adapter-faceid-plus_sd15.bin", Variant.FACEID_PLUS),
        ("anything.bin", Variant.FACEID_PLUS_V2),
    ],
)
def test_ambiguous_variants_of_unknown_hash_are_decided_by_name_and_the_log_says_so(
    models, caplog, name, expected
):
    install(models, name, FACEID_PLUS)
    caplog.set_level(logging.INFO)
    assert call("ImagePromptLoader", name).spec.variant is expected
    assert f"{name} is taken for {expected.value}" in caplog.text


def test_the_setting_decides_before_the_name(models):
    install(models, "ip-adapter-faceid-plusv2_sd15.bin", FACEID_PLUS)
    made = call("ImagePromptLoader", "ip-adapter-faceid-plusv2_sd15.bin", "faceid plus")
    assert made.spec.variant is Variant.FACEID_PLUS


def test_a_setting_against_the_contents_is_refused(models):
    install(models, "a.safetensors", FACEID)
    with pytest.raises(SettingError, match="cannot be 'faceid plus v2': its tensors are those of 'faceid'"):
        call("ImagePromptLoader", "a.safetensors", "faceid plus v2")


def test_where_the_contents_decide_nothing_else_is_asked(models, caplog):
    install(models, "a.safetensors", FACEID)
    assert call("ImagePromptLoader", "a.safetensors", BY_CONTENT).spec.variant is Variant.FACEID
    assert "taken for" not in caplog.text


# --- the one-node prompt -----------------------------------------------------------------------------------------


def test_one_node_takes_the_largest_face_and_the_lora(models, model):
    install(models, "who.safetensors", FACEID, lora_rank=4)
    image = canvas(480, 640, (40, 160, 96, 40, 120), (200, 240, 160, 128, 60))
    steered = call("ImagePrompt", model, None, image, "who.safetensors", 0.8)
    assert len(steered.patches[KEY]) == 1

    finder = NODE_CLASS_MAPPINGS["ImagePromptFaces"]()
    faces = finder.find(image, "buffalo_l")[0]
    prompt = call("ImagePromptEncodeFace", call("ImagePromptLoader", "who.safetensors"), faces)
    by_hand = call("ImagePromptApply", model, prompt, 0.8)
    assert torch.equal(tiny.run_unet(steered, tiny.SD15), tiny.run_unet(by_hand, tiny.SD15))
    assert not torch.equal(tiny.run_unet(steered, tiny.SD15), tiny.run_unet(model, tiny.SD15))


def test_one_node_at_weight_0_is_the_plain_model(models, model):
    install(models, "who.safetensors", FACEID, lora_rank=4)
    image = canvas(480, 640, (40, 160, 96, 40, 120))
    steered = call("ImagePrompt", model, None, image, "who.safetensors", 0.0)
    assert steered.patches == {}
    assert torch.equal(tiny.run_unet(steered, tiny.SD15), tiny.run_unet(model, tiny.SD15))


# --- the wrong encoder -------------------------------------------------------------------------------------------


def test_the_wrong_encoder_names_the_installed_file_that_fits(models, model):
    install(models, "plus.safetensors", PLUS)
    with pytest.raises(
        WrongEncoderError, match=r"of width 1280 \(CLIP ViT-H/14\).*Installed is model\.safetensors\.$"
    ):
        call("ImagePrompt", model, tiny.clip_vision(), tiny.picture(), "plus.safetensors", 1.0)


def test_where_none_fits_it_says_what_to_get(models, model):
    install(models, "plus.safetensors", PLUS)
    (models / "clip_vision" / "model.safetensors").unlink()
    with pytest.raises(
        WrongEncoderError, match=r"Get CLIP-ViT-H-14-.* into models/clip_vision, sha256 6ca9667da1ca"
    ):
        call(
            "ImagePromptEncode",
            call("ImagePromptLoader", "plus.safetensors"),
            tiny.clip_vision(),
            tiny.picture(),
        )
