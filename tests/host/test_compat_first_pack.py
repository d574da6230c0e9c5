"""The IPAdapter node of 2023: known among queued prompts, and equal to our own node with the same file."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import stand_ins
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes.compat import node_classes, old_prompts
from image_prompt.nodes.compat.first_pack import FirstPackNode
from image_prompt.nodes.compat.page_names import ROUTE
from image_prompt.nodes.compat.problem import PROBLEM, ProblemNode
from image_prompt.nodes.simple import ImagePromptNode
from support import tiny
from support.sampling import sample

PLUS, BASE = "ip-adapter-plus_sd15.bin", "ip-adapter_sd15.bin"  # as they were called in 2023
FINAL = {"weight": 0.8, "model_name": PLUS, "dtype": "fp16"} | {
    name: [str(n), 0] for n, name in enumerate(("model", "image", "clip_vision"))
}
LINKS = {name: FINAL[name] for name in ("model", "image", "clip_vision")}


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
    message = ProblemNode.VALIDATE_INPUTS(node["inputs"]["problem"])
    assert message.startswith(f"'{title}' came without its values {missing}. ")
    assert "open the workflow in the ComfyUI page and save it with 'Export (API)'" in message


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
    message = FirstPackNode.VALIDATE_INPUTS("ip-adapter-plus-face_sd15.bin")
    assert "Files found there: ip-adapter-plus_sd15.safetensors, " in message
    assert FirstPackNode.VALIDATE_INPUTS(PLUS) is True


def test_the_page_knows_the_same_nodes():
    """It retypes them before they take their values by position."""
    script = (Path(old_prompts.__file__).parents[2] / "web" / "js" / "image_prompt.js").read_text(
        encoding="utf-8"
    )
    known = re.findall(r'\{ old: "(\w+)", here: "(\w+)", own: "(\w+)" \}', script)
    assert known == [
        (old_prompts.FIRST_ENCODER, old_prompts.FIRST_ENCODER_HERE, "image_1"),
        (old_prompts.FIRST_APPLY, old_prompts.FIRST_APPLY_HERE, "model_name"),
    ]
    assert ROUTE in script
