"""The older packs' loaders: what their presets and file names mean here, and what other packs get from them."""

import logging

import folder_paths
import pytest
import torch
from core.outlines import FACE_LORAS, VIT_H, encoder, write_outline
from helpers import face_graphs, stand_ins
from image_prompt import host
from image_prompt.host import folders
from image_prompt.ipadapter_core.errors import MismatchError, MissingFileError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.nodes.compat.insight import InsightFace
from image_prompt.nodes.compat.loaders import CLASSES
from image_prompt.nodes.compat.presets import preset_named
from image_prompt.nodes.names import adapter_path
from safetensors.torch import save_file
from support import layouts, tiny

KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
UNIFIED, UNIFIED_FACE_ID = CLASSES["IPAdapterUnifiedLoader"], CLASSES["IPAdapterUnifiedLoaderFaceID"]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No adapter; an encoder of a name that says nothing, and face models."""
    for name in ("ipadapter", "clip_vision", "loras"):
        (tmp_path / name).mkdir()
    stand_ins.use_models(tmp_path, monkeypatch)
    write_outline(tmp_path / "clip_vision" / "model.safetensors", encoder(*VIT_H))
    face_graphs.toy_pack(tmp_path / "insightface" / "models" / "buffalo_l")
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return tiny.host_model(tiny.SD15)


BASE = layouts.base(1024, 768)
PLUS = layouts.plus(1280, 768, 128, 2)
FACEID = layouts.faceid(768)
FACEID_PLUS = layouts.faceid_plus(1280, 768, heads=2, hidden=128)


def install(models, name, image_proj, lora_rank=0):
    """An adapter for the small SD1.5 UNet."""
    widths = tiny.site_widths(tiny.SD15)
    table = image_proj | layouts.keys_values(widths, 768)
    table |= layouts.lora(widths, 768, lora_rank) if lora_rank else {}
    path = models / "ipadapter" / name
    path.parent.mkdir(exist_ok=True)
    save_file(tiny.random_({key: torch.zeros(shape) for key, shape in table.items()}, seed=3), path)
    folder_paths.filename_list_cache.clear()


def face_lora(models, name):
    write_outline(models / "loras" / name, FACE_LORAS["SD1.5"])


def load(node, model, preset, **more):
    """(model, name of the adapter's file, pipeline)."""
    made, pipeline = node().load_models(model, preset, **more)
    return made, pipeline["ipadapter"]["model"].name, pipeline


# --- presets: by name, then by contents --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "file"),
    [
        ("STANDARD (medium strength)", "ip-adapter_sd15.safetensors"),
        ("PLUS (high strength)", "ip-adapter-plus_sd15.safetensors"),
        ("plus (High  strength)", "ip-adapter-plus_sd15.safetensors"),
        ("PLUS", "ip-adapter-plus_sd15.safetensors"),
    ],
)
def test_a_preset_takes_the_file_of_its_usual_name(models, model, preset, file):
    made, name, pipeline = load(UNIFIED, model, preset)
    assert made is model
    assert name == file
    assert pipeline["ipadapter"]["file"] == str(models / "ipadapter" / file)
    assert pipeline["clipvision"]["file"] == str(models / "clip_vision" / stand_ins.ENCODER)
    assert pipeline["clipvision"]["model"] is stand_ins.clip_vision()
    assert pipeline["insightface"] == {"provider": None, "model": None}


def test_the_family_is_the_models(models):
    _, name, _ = load(UNIFIED, tiny.host_model(tiny.SDXL), "PLUS (high strength)")
    assert name == "ip-adapter-plus_sdxl_vit-h.safetensors"


@pytest.mark.parametrize("name", ["anything.safetensors", "sub/mine.safetensors"])
def test_without_its_name_contents_decide(empty, model, name):
    install(empty, name, PLUS)
    install(empty, "a faceid.safetensors", FACEID, lora_rank=4)
    assert load(UNIFIED, model, "PLUS (high strength)")[1] == name.split("/")[-1]


def test_a_name_with_other_contents_is_passed_over(empty, model):
    install(empty, "ip-adapter-plus_sd15.safetensors", FACEID, lora_rank=4)
    install(empty, "mine.safetensors", PLUS)
    assert load(UNIFIED, model, "PLUS (high strength)")[1] == "mine.safetensors"


def test_of_files_that_look_alike_the_named_one_is_taken_without_a_hash(empty, model, monkeypatch):
    monkeypatch.setattr(folders.Index, "sha256", lambda *_: pytest.fail("a file was hashed"))
    for name in ("ip-adapter_sd15.safetensors", "ip-adapter_sd15_light.safetensors", "a.safetensors"):
        install(empty, name, BASE)
    assert load(UNIFIED, model, "LIGHT - SD1.5 only")[1] == "ip-adapter_sd15_light.safetensors"
    assert load(UNIFIED, model, "STANDARD (medium strength)")[1] == "ip-adapter_sd15.safetensors"


def test_of_encoders_that_fit_the_usual_name_is_taken(models, model):
    write_outline(models / "clip_vision" / "a first one.safetensors", encoder(*VIT_H))
    _, _, pipeline = load(UNIFIED, model, "STANDARD (medium strength)")
    assert pipeline["clipvision"]["file"].endswith(stand_ins.ENCODER)


def test_the_oldest_name_of_the_encoder_is_known_too(empty, model):
    install(empty, "ip-adapter_sd15.safetensors", BASE)
    write_outline(empty / "clip_vision" / "SD1.5" / "model.safetensors", encoder(*VIT_H))
    _, _, pipeline = load(UNIFIED, model, "STANDARD (medium strength)")
    assert pipeline["clipvision"]["file"] == str(empty / "clip_vision" / "SD1.5" / "model.safetensors")


@pytest.mark.parametrize(
    ("node", "preset", "words"),
    [
        (UNIFIED, "PLUS FACE (portraits)", "ip-adapter-plus-face_sd15.safetensors .* into models/ipadapter"),
        (UNIFIED, "VIT-G (medium strength)", "you need: ip-adapter_sd15_vit-G.*CLIP-ViT-bigG"),
        (UNIFIED_FACE_ID, "FACEID PORTRAIT UNNORM - SDXL only (strong)", "it exists for SDXL"),
        (UNIFIED_FACE_ID, "FACEID PLUS - SD1.5 only", "ip-adapter-faceid-plus_sd15.bin"),
    ],
)
def test_what_is_missing_is_said(empty, model, node, preset, words):
    with pytest.raises(MissingFileError, match=words):
        load(node, model, preset)


def test_light_is_not_for_sdxl(models):
    with pytest.raises(
        MissingFileError, match=r"no released adapter serves 'light' on SDXL; it exists for SD1\.5"
    ):
        load(UNIFIED, tiny.host_model(tiny.SDXL), "LIGHT - SD1.5 only (low strength)")


def test_kolors_is_not_for_sd15(models, model):
    with pytest.raises(
        MismatchError, match=r"'kolors' is for Kolors models, and the connected model is SD1\.5"
    ):
        load(CLASSES["IPAdapterUnifiedLoaderCommunity"], model, "Kolors")


def test_every_preset_of_the_menus_is_known():
    for node in (UNIFIED, UNIFIED_FACE_ID, CLASSES["IPAdapterUnifiedLoaderCommunity"]):
        for preset in node.INPUT_TYPES()["required"]["preset"][0]:
            assert node.VALIDATE_INPUTS(preset) is True
    assert preset_named("FACEID PLUS V2").variants == ("faceid plus v2",)
    assert preset_named("FACEID PLUS - SD1.5 only").variants == ("faceid plus",)


def test_an_unknown_preset_is_answered_with_the_menu():
    message = UNIFIED.VALIDATE_INPUTS("REGULAR - FLUX only")
    assert message.startswith(
        "preset 'REGULAR - FLUX only' is not known here. Pick one of: LIGHT - SD1.5 only"
    )
    assert UNIFIED.VALIDATE_INPUTS(None) is True  # linked


# --- pipelines ---------------------------------------------------------------------------------------------------


def test_a_connected_pipeline_lends_its_parts_and_is_left_alone(models, model):
    _, _, first = load(UNIFIED, model, "STANDARD (medium strength)")
    before = {part: dict(held) for part, held in first.items()}
    _, _, again = load(UNIFIED, model, "STANDARD (medium strength)", ipadapter=first)
    _, _, other = load(UNIFIED, model, "PLUS (high strength)", ipadapter=first)
    assert again["ipadapter"]["model"] is first["ipadapter"]["model"]
    assert other["ipadapter"]["model"] is not first["ipadapter"]["model"]
    assert other["clipvision"]["model"] is first["clipvision"]["model"]
    assert first == before
    assert all(again[part] is not first[part] for part in first)


def test_a_raw_adapter_may_be_connected_too(models, model):
    raw = CLASSES["IPAdapterModelLoader"]().load_ipadapter_model("ip-adapter_sd15.safetensors")[0]
    assert load(UNIFIED, model, "STANDARD (medium strength)", ipadapter=raw)[1] == raw.name
    assert load(UNIFIED, model, "STANDARD (medium strength)", ipadapter=dict(raw))[1] == raw.name


# --- faces and their LoRA ----------------------------------------------------------------------------------------


def strengths(model):
    return [patch[0] for patch in model.patches.get(KEY, [])]


def test_the_lora_inside_is_put_on_where_there_is_no_separate_one(models, model):
    made, name, pipeline = load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.6)
    assert name == "ip-adapter-faceid_sd15.bin"
    assert strengths(made) == [0.6]
    assert strengths(model) == []
    assert pipeline["insightface"]["provider"] == "CPU"
    assert isinstance(pipeline["insightface"]["model"], InsightFace)
    assert pipeline["clipvision"] == {"file": None, "model": None}


def test_the_separate_lora_stands_in_for_the_inner_one(models, model, monkeypatch):
    face_lora(models, "ip-adapter-faceid_sd15_lora.safetensors")
    asked = []
    monkeypatch.setattr(host, "lora_file", lambda path: asked.append(path.name) or {})
    load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.6)
    assert asked == ["ip-adapter-faceid_sd15_lora.safetensors"]


def test_a_separate_lora_of_any_name_serves_an_adapter_without(empty, model):
    install(empty, "ip-adapter-faceid_sd15.safetensors", FACEID)
    face_lora(empty, "whose.safetensors")
    assert load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.6)[0] is not model


def test_it_is_never_put_on_twice(models, model):
    made, _, pipeline = load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.6)
    made, _, _ = load(UNIFIED_FACE_ID, made, "FACEID", lora_strength=0.6, ipadapter=pipeline)
    assert strengths(made) == [0.6]


def test_without_any_lora_it_says_which_to_get(empty, model):
    install(empty, "ip-adapter-faceid_sd15.safetensors", FACEID)
    with pytest.raises(
        MissingFileError, match=r"ip-adapter-faceid_sd15_lora.safetensors .* into models/loras"
    ):
        load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.6)


def test_at_strength_0_none_is_needed(empty, model):
    install(empty, "ip-adapter-faceid_sd15.safetensors", FACEID)
    made, name, _ = load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.0)
    assert name == "ip-adapter-faceid_sd15.safetensors"
    assert made.patches == {}


def test_plus_and_its_v2_are_distinguished_by_name(empty, model):
    install(empty, "ip-adapter-faceid-plus_sd15.bin", FACEID_PLUS, lora_rank=4)
    install(empty, "ip-adapter-faceid-plusv2_sd15.bin", FACEID_PLUS, lora_rank=4)
    for preset, variant in (
        ("FACEID PLUS - SD1.5 only", Variant.FACEID_PLUS),
        ("FACEID PLUS V2", Variant.FACEID_PLUS_V2),
    ):
        _, _, pipeline = load(UNIFIED_FACE_ID, model, preset, lora_strength=0.6)
        assert pipeline["ipadapter"]["model"].spec.variant is variant


def test_the_face_model_is_used_again(models, model):
    _, _, first = load(UNIFIED_FACE_ID, model, "FACEID", lora_strength=0.0)
    _, _, again = load(UNIFIED_FACE_ID, model, "FACEID PLUS V2", lora_strength=0.0, ipadapter=first)
    assert again["insightface"]["model"] is first["insightface"]["model"]


# --- file names of old workflows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "ip-adapter_sd15.safetensors",
        "ip-adapter_sd15.bin",
        "SD1.5\\ip-adapter_sd15.safetensors",
        "sd15/IP-Adapter_SD15.pth",
        "ip-adapter_sd15 .bin",
        "IPAdapter-SD1.5.ckpt",
    ],
)
def test_an_adapter_is_found_by_its_base_name(models, name):
    made = CLASSES["IPAdapterModelLoader"]().load_ipadapter_model(ipadapter_file=name)[0]
    assert made.name == "ip-adapter_sd15.safetensors"
    assert CLASSES["IPAdapterModelLoader"].VALIDATE_INPUTS(name) is True


def test_the_named_folder_comes_before_the_base_name(empty):
    install(empty, "a.safetensors", BASE)
    install(empty, "sub/a.safetensors", PLUS)
    assert adapter_path("sub\\a.safetensors") == str(empty / "ipadapter" / "sub" / "a.safetensors")
    assert adapter_path("a.safetensors") == str(empty / "ipadapter" / "a.safetensors")


def test_a_released_file_is_found_by_its_contents(empty, caplog):
    caplog.set_level(logging.INFO)
    install(empty, "mine.safetensors", PLUS)
    assert adapter_path("ip-adapter-plus_sd15.bin") == str(empty / "ipadapter" / "mine.safetensors")
    assert "the workflow's adapter 'ip-adapter-plus_sd15.bin' is mine.safetensors here" in caplog.text


def test_where_the_contents_leave_a_doubt_it_says_what_to_get(empty):
    install(empty, "mine.safetensors", PLUS)  # may be plus; face and composition look alike
    message = CLASSES["IPAdapterModelLoader"].VALIDATE_INPUTS("ip-adapter-plus-face_sd15.safetensors")
    assert "adapter file 'ip-adapter-plus-face_sd15.safetensors' is not in" in message
    assert "Of the same kind by their contents: mine.safetensors" in message
    with pytest.raises(MissingFileError, match=r"or get ip-adapter-plus-face_sd15\.safetensors"):
        CLASSES["IPAdapterModelLoader"]().load_ipadapter_model("ip-adapter-plus-face_sd15.safetensors")


# --- calls of other packs ----------------------------------------------------------------------------------------


def test_inspire_packs_calls(models, model):
    ipadapter = CLASSES["IPAdapterModelLoader"]().load_ipadapter_model(
        ipadapter_file="ip-adapter_sd15.safetensors"
    )[0]
    assert ipadapter["ip_adapter"]["1.to_k_ip.weight"].shape[1] == 768
    insightface = CLASSES["IPAdapterInsightFaceLoader"]().load_insightface("CPU", model_name="buffalo_l")[0]
    assert insightface.get is not None
    assert CLASSES["InsightFaceLoader"]().load_insight_face("CPU")[0].models.keys() == {
        "detection",
        "recognition",
    }


def test_easy_use_calls(models, model):
    made, pipeline = UNIFIED().load_models(model, "PLUS (high strength)", 0.0, "CPU", ipadapter=None)
    assert made is model
    assert "insightface" in pipeline
    made, pipeline = UNIFIED_FACE_ID().load_models(model, "FACEID PLUS V2", 0.6, "CPU", None)
    assert strengths(made) == [0.6]
