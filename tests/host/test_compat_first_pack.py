"""The IPAdapter node of 2023: known among queued prompts, and equal to our own node with the same file."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes import host
from image_prompt.nodes.apply import ImagePromptNode
from image_prompt.nodes.compat import node_classes, old_prompts
from image_prompt.nodes.compat.encoder_files import find_encoders
from image_prompt.nodes.compat.first_pack import FirstPackNode
from image_prompt.nodes.compat.problem import PROBLEM, ProblemNode
from support import stand_ins, tiny
from support.sampling import sample

PLUS, BASE = "ip-adapter-plus_sd15.bin", "ip-adapter_sd15.bin"  # as they were called in 2023
FINAL = {"weight": 0.8, "model_name": PLUS, "dtype": "fp16"} | {
    name: [str(n), 0] for n, name in enumerate(("model", "image", "clip_vision"))
}
LINKS = {name: FINAL[name] for name in ("model", "image", "clip_vision")}


@pytest.fixture(scope="module")
def public_models(tmp_path_factory):
    return stand_ins.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def models(public_models, tmp_path, monkeypatch):
    """Models under their public names, in a folder of the test's own."""
    shutil.copytree(public_models, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    stand_ins.use_models(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def model():
    return tiny.host_model(tiny.SD15)


def renewed(inputs, class_type="IPAdapter", classes=None):
    prompt = {"7": {"class_type": class_type, "inputs": dict(inputs)}}
    ours = node_classes()
    old_prompts.renew(prompt, ours if classes is None else classes, lambda node: node in ours.values())
    return prompt["7"]


# --- among queued prompts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        FINAL,
        FINAL | {"mask": ["9", 0]},
        {"model": ["1", 0], "clip_vision_output": ["2", 0], "weight": 1, "model_name": BASE},
        {"model": ["1", 0], "weight": 1, "model_name": BASE},
        LINKS | {"weight": 0.8, "start_at": PLUS, "end_at": "fp16"},  # of a converter that knows today's node
    ],
)
def test_the_node_of_2023_is_told_from_its_namesake(models, inputs):
    node = renewed(inputs)
    assert node["class_type"] == "ImagePromptLegacyApply"
    assert node["inputs"]["model_name"] in (PLUS, BASE)
    assert node["inputs"]["dtype"] == "fp16"
    assert node["inputs"]["weight"] == inputs["weight"]
    assert not {"start_at", "end_at"} & node["inputs"].keys()


@pytest.mark.parametrize(
    "inputs",
    [
        {
            "model": ["1", 0],
            "ipadapter": ["1", 1],
            "image": ["2", 0],
            "weight": 1,
            "start_at": 0,
            "end_at": 1,
        },
        {
            "model": ["1", 0],
            "image": ["2", 0],
            "weight": 1,
            "start_at": 0,
            "end_at": 1,
            "weight_type": "standard",
        },
        {
            "model": ["1", 0],
            "ipadapter": ["1", 1],
            "image": ["2", 0],
            "weight": 1,
            "start_at": "0.5",
            "end_at": 1,
        },
        {"model": ["1", 0], "weight": 1, "start_at": "0.5", "end_at": 1, "weight_type": "standard"},
    ],
)
def test_todays_node_stays(models, inputs):
    node = renewed(inputs)
    assert node["class_type"] == "IPAdapter"
    assert node["inputs"].items() >= inputs.items()


def test_where_the_older_pack_is_installed_its_node_stays(models):
    theirs = type("IPAdapter", (), {"INPUT_TYPES": staticmethod(lambda: {"required": {"model_name": ([],)}})})
    assert renewed(FINAL, classes=node_classes() | {"IPAdapter": theirs})["class_type"] == "IPAdapter"
    encoder = type(
        "Encoder", (), {"INPUT_TYPES": staticmethod(lambda: {"required": {"image_1": ("IMAGE",)}})}
    )
    classes = node_classes() | {"IPAdapterEncoder": encoder}
    assert renewed({"image_1": ["1", 0]}, "IPAdapterEncoder", classes)["class_type"] == "IPAdapterEncoder"


def test_where_another_pack_has_the_later_node_ours_stands_for_the_first(models):
    later = type(
        "IPAdapter", (), {"INPUT_TYPES": staticmethod(lambda: {"required": {"ipadapter": ("IPADAPTER",)}})}
    )
    node = renewed(FINAL, classes=node_classes() | {"IPAdapter": later})
    assert node["class_type"] == "ImagePromptLegacyApply"


@pytest.mark.parametrize(
    ("class_type", "inputs", "title", "missing"),
    [
        ("IPAdapterEncoder", {"image_1": ["2", 0]}, "Encode IPAdapter Image", "ipadapter_plus, weight_1"),
        ("IPAdapterEncoder", {"image_1": ["2", 0], "weight": False}, "Encode IPAdapter Image", "ipadapter_plus, weight_1"),
        ("IPAdapter", LINKS, "Load IPAdapter", "weight, model_name"),
        ("IPAdapter", LINKS | {"weight": 1.0}, "Load IPAdapter", "model_name"),
        ("IPAdapterApply", {"model": ["1", 0]}, "Apply IPAdapter", "weight"),
    ],
)  # fmt: skip
def test_values_that_a_converter_lost_are_a_sentence(models, class_type, inputs, title, missing):
    node = renewed(inputs, class_type)
    assert node["class_type"] == PROBLEM
    told = ProblemNode.VALIDATE_INPUTS(node["inputs"]["problem"])
    assert told.startswith(f"'{title}' came without its values {missing}. ")
    assert "open the workflow in the ComfyUI page and save it with 'Export (API)'" in told


def test_a_missing_connection_is_left_for_the_host_to_say(models):
    whole = {"ipadapter_plus": False, "noise": 0.0, "weight_1": 1.0, "image_1": ["2", 0]}
    assert renewed(whole, "IPAdapterEncoder") == {"class_type": "ImagePromptLegacyEncoder", "inputs": whole}


def test_a_problem_fits_every_input_on_every_host():
    assert not any(kind != "MODEL" for kind in ProblemNode.RETURN_TYPES)  # as hosts of all ages compare
    assert json.dumps(ProblemNode.RETURN_TYPES[:1]) == '["*"]'


# --- what it does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [PLUS, BASE])
def test_it_equals_our_own_node(models, model, name):
    image, encoder = tiny.picture(1), stand_ins.clip_vision()
    steered, seen = FirstPackNode().adapter(model, 0.8, name, "fp16", image, encoder)
    own = ImagePromptNode().apply(model, encoder, image, Path(name).with_suffix(".safetensors").name, 0.8)[0]
    assert torch.equal(sample(steered, tiny.SD15), sample(own, tiny.SD15))
    assert not torch.equal(sample(steered, tiny.SD15), sample(model, tiny.SD15))
    assert torch.equal(seen["image_embeds"], encoder.encode_image(image)["image_embeds"])


def test_what_clip_vision_encode_gave_is_enough_for_the_first_adapters(models, model):
    image, encoder = tiny.picture(1), stand_ins.clip_vision()
    output = encoder.encode_image(image)
    by_output = FirstPackNode().adapter(model, 1.0, BASE, clip_vision_output=output)[0]
    by_image = FirstPackNode().adapter(model, 1.0, BASE, image=image, clip_vision=encoder)[0]
    assert (
        sample(by_output, tiny.SD15) - sample(by_image, tiny.SD15)
    ).abs().max() < 2e-3  # the host's own preprocessing
    with pytest.raises(
        MismatchError, match=r"needs more than clip_vision_output\. Connect image and clip_vision"
    ):
        FirstPackNode().adapter(model, 1.0, PLUS, clip_vision_output=output)
    with pytest.raises(MismatchError, match="no picture came"):
        FirstPackNode().adapter(model, 1.0, PLUS)


def test_a_file_that_is_not_there_is_said_with_the_nearest_first(models):
    told = FirstPackNode.VALIDATE_INPUTS("ip-adapter-plus-face_sd15.bin")
    assert "Files found there: ip-adapter-plus_sd15.safetensors, " in told
    assert FirstPackNode.VALIDATE_INPUTS(PLUS) is True


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
    monkeypatch.setattr(host, "say", lambda node, text: said.append((node, text)))
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
    told = looked_up(G)["inputs"]["problem"]
    assert told == (
        f"CLIP vision file '{G}' is not installed. By its name it is CLIP ViT-bigG/14, but the adapter reads CLIP ViT-H/14: "
        "pick mine.safetensors."
    )
    alone = looked_up(G, "IPAdapterEncoder", {"clip_vision": ["6", 0]})["inputs"]["problem"]
    assert "CLIP ViT-bigG/14 is needed. Get CLIP-ViT-bigG-14" in alone
    assert alone.endswith("Encoders found: mine.safetensors (CLIP ViT-H/14).")
    unknown = looked_up("x.bin", "IPAdapterEncoder", {"clip_vision": ["6", 0]})["inputs"]["problem"]
    assert (
        "pick the one that your adapter reads. Encoders found: mine.safetensors (CLIP ViT-H/14)." in unknown
    )


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
