"""Encoders and LoRAs that a queued prompt names for the host's own loaders, where they are not installed by that name."""

import logging

import pytest
from core.outlines import FACE_LORAS, write_outline
from image_prompt import host
from image_prompt.nodes.compat import node_classes
from image_prompt.nodes.compat.encoder_files import find_encoders
from image_prompt.nodes.compat.lora_files import find_loras
from image_prompt.nodes.compat.problem import PROBLEM
from image_prompt.nodes.simple import ImagePromptNode

PLUS = "ip-adapter-plus_sd15.bin"


# --- encoders that are not installed -----------------------------------------------------------------------------

H, G = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"
OURS = {**node_classes(), "ImagePrompt": ImagePromptNode}


def looked_up(name, class_type="ImagePrompt", inputs=None):
    given = (
        {"clip_vision": ["6", 0], "ipadapter_file": "ip-adapter-plus_sd15.safetensors"}
        if inputs is None
        else inputs
    )
    prompt = {
        "6": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": name}},
        "7": {"class_type": class_type, "inputs": given},
    }
    loader = type("Loader", (), {"RETURN_TYPES": ("CLIP_VISION",)})
    classes = OURS | {"CLIPVisionLoader": loader, "Switch": type("Switch", (), {"RETURN_TYPES": ("*",)})}
    if class_type == "Switch":
        prompt["8"] = {
            "class_type": "ImagePrompt",
            "inputs": {"clip_vision": ["7", 0], "ipadapter_file": PLUS},
        }
    find_encoders(prompt, classes, lambda node: node in OURS.values())
    return prompt["6"]


@pytest.fixture
def renamed(models):
    """The encoder under a name that does not say what it is."""
    (models / "clip_vision" / H).rename(models / "clip_vision" / "mine.safetensors")
    return models


@pytest.mark.parametrize(
    "name",
    [H, "SD1.5/model.safetensors", "IPAdapter_image_encoder_sd15.safetensors", "clip-vit-h.bin"],
)
def test_a_missing_encoder_is_found_by_what_its_name_means(renamed, name, caplog, monkeypatch):
    said = []
    monkeypatch.setattr(host, "show_status", lambda node, text: said.append((node, text)))
    caplog.set_level(logging.INFO)
    assert looked_up(name)["inputs"] == {"clip_name": "mine.safetensors"}
    line = (
        f"CLIP vision file '{name}' is not installed; mine.safetensors is used, which is CLIP ViT-H/14 too."
    )
    assert said == [("6", line)]
    assert line in caplog.text


def test_a_name_that_says_nothing_is_settled_by_the_adapter(renamed):
    assert looked_up("pytorch_model.fp16.bin")["inputs"] == {"clip_name": "mine.safetensors"}
    assert looked_up("x.bin", "Switch", {"any": ["6", 0]})["inputs"] == {"clip_name": "mine.safetensors"}
    legacy = {"clip_vision": ["6", 0], "model_name": PLUS}
    assert looked_up("x.bin", "ImagePromptLegacyApply", legacy)["inputs"] == {"clip_name": "mine.safetensors"}


def test_another_kind_is_never_put_in_its_place(renamed):
    message = looked_up(G)["inputs"]["problem"]
    assert message == (
        f"CLIP vision file '{G}' is not installed. By its name it is CLIP ViT-bigG/14, but the adapter reads CLIP ViT-H/14: "
        "pick mine.safetensors."
    )
    alone = looked_up(G, "IPAdapterEncoder", {"clip_vision": ["6", 0]})["inputs"]["problem"]
    assert "CLIP ViT-bigG/14 is needed. Get CLIP-ViT-bigG-14" in alone
    found = alone.split("Encoders found: ")[1]
    assert "mine.safetensors (CLIP ViT-H/14)" in found
    unknown = looked_up("x.bin", "IPAdapterEncoder", {"clip_vision": ["6", 0]})["inputs"]["problem"]
    assert "pick the one that your adapter reads. Encoders found: " in unknown
    assert "mine.safetensors (CLIP ViT-H/14)" in unknown


def test_a_file_of_this_name_but_another_kind_is_not_taken(renamed):
    (renamed / "clip_vision" / "mine.safetensors").rename(renamed / "clip_vision" / G.replace("-", "_"))
    assert looked_up(G, "IPAdapterEncoder", {"clip_vision": ["6", 0]})["class_type"] == PROBLEM


def test_another_spelling_of_the_installed_file_is_that_file(models):
    assert looked_up(f"sub\\{H.lower()}")["inputs"] == {"clip_name": H}


def test_what_is_installed_or_feeds_others_is_left_alone(renamed):
    assert looked_up("mine.safetensors")["inputs"] == {"clip_name": "mine.safetensors"}
    assert looked_up("x.bin", "unCLIPConditioning", {"clip_vision": ["6", 0]})["inputs"] == {
        "clip_name": "x.bin"
    }


# --- LoRAs that are not installed --------------------------------------------------------------------------------

LORA = "ip-adapter-faceid_sd15_lora.safetensors"


def lora_of(name, beside="IPAdapterFaceID", loader="LoraLoaderModelOnly"):
    prompt = {
        "3": {"class_type": loader, "inputs": {"lora_name": name, "strength_model": 1.0}},
        "4": {"class_type": beside, "inputs": {"model": ["3", 0]}},
    }
    find_loras(prompt, OURS, lambda node: node in OURS.values())
    return prompt["3"]


@pytest.mark.parametrize(
    "there", [LORA, "faces/ip_adapter_faceid_sd15_lora .safetensors", "mine.safetensors"]
)
@pytest.mark.parametrize("loader", ["LoraLoader", "LoraLoaderModelOnly"])
def test_a_lora_of_faceid_is_found_by_name_or_contents(models, there, loader):
    write_outline(models / "loras" / there, FACE_LORAS["SD1.5"])
    assert lora_of(f"FaceID\\{LORA}", loader=loader)["inputs"]["lora_name"] == there
    assert lora_of("something else.safetensors")["inputs"]["lora_name"] == "something else.safetensors"
    assert lora_of(f"FaceID\\{LORA}", beside="KSampler")["inputs"]["lora_name"] == f"FaceID\\{LORA}"


def test_a_missing_lora_of_faceid_is_said_with_where_to_get_it(models):
    write_outline(models / "loras" / "other.safetensors", {"a": (1,)})
    message = lora_of(LORA)["inputs"]["problem"]
    assert message.startswith(f"LoRA '{LORA}' is not installed. LoRAs found: other.safetensors. Get {LORA}")
