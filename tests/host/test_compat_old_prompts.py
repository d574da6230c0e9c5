"""Queued prompts that older versions saved are read as today's nodes mean them."""

import pytest
from image_prompt.nodes.compat.old_prompts import OLD_VALUES, renew


class Apply:
    """A node of ours, with inputs that were added over time."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "weight": ("FLOAT", {"default": 1.0}),
                "weight_type": (
                    ["linear", "ease in", "style transfer", "composition", "style and composition"],
                ),
                "embeds_scaling": (["V only", "K+V", "K+mean(V) w/ C penalty"],),
                "encode_batch_size": ("INT", {"default": 0}),
            }
        }


class Prep:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"interpolation": (["LANCZOS", "BICUBIC", "HAMMING", "BILINEAR", "BOX", "NEAREST"],)}
        }


class Legacy:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"noise": ("FLOAT", {"default": 0.0})}}


HERE = {"Apply": Apply, "Prep": Prep, "ImagePromptLegacyEncoder": Legacy}


def renewed(class_type, inputs, classes=HERE, is_ours=lambda _: True):
    prompt = {"5": {"class_type": class_type, "inputs": dict(inputs)}}
    renew(prompt, classes, is_ours)
    return prompt["5"]


def test_inputs_that_were_added_later_get_their_defaults():
    assert renewed("Apply", {"model": ["1", 0], "weight": 0.7})["inputs"] == {
        "model": ["1", 0],
        "weight": 0.7,
        "weight_type": "linear",
        "embeds_scaling": "V only",
        "encode_batch_size": 0,
    }


def test_what_was_always_required_stays_missing():
    assert "weight" not in renewed("Apply", {"model": ["1", 0]})["inputs"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("style transfer (SDXL)", "style transfer"),
        ("composition (SDXL)", "composition"),
        ("style transfer and composition", "style and composition"),
        ("original", "linear"),
        ("ease in", "ease in"),
        ("something else", "something else"),
    ],
)
def test_old_weight_types_are_renamed(old, new):
    assert renewed("Apply", {"weight_type": old})["inputs"]["weight_type"] == new


def test_a_channel_penalty_is_a_scaling_now():
    inputs = renewed("Apply", {"weight_type": "channel penalty", "embeds_scaling": "V only"})["inputs"]
    assert (inputs["weight_type"], inputs["embeds_scaling"]) == ("linear", "K+mean(V) w/ C penalty")


@pytest.mark.parametrize(
    ("old", "new"), [("lanczos", "LANCZOS"), ("area", "BOX"), ("nearest-exact", "NEAREST")]
)
def test_old_interpolations_are_renamed(old, new):
    assert renewed("Prep", {"interpolation": old})["inputs"]["interpolation"] == new


def test_every_new_name_is_a_value_of_its_input():
    menus = Apply.INPUT_TYPES()["required"] | Prep.INPUT_TYPES()["required"]
    for renames in OLD_VALUES.values():
        for update in renames.values():
            assert all(value in menus[name][0] for name, value in update.items())


def test_other_packs_nodes_and_links_are_left_alone():
    inputs = {"weight_type": "original"}
    assert renewed("Apply", inputs, is_ours=lambda _: False)["inputs"] == inputs
    assert renewed("Apply", {"weight_type": ["3", 0]})["inputs"]["weight_type"] == ["3", 0]


FIRST = {"clip_vision": ["1", 0], "image_1": ["2", 0], "ipadapter_plus": False, "noise": 0.3, "weight_1": 0.5}
SECOND = {"ipadapter": ["1", 0], "image": ["2", 0], "weight": 1.0, "clip_vision": ["3", 0]}


def test_the_first_encoder_is_told_from_its_namesake():
    assert renewed("IPAdapterEncoder", FIRST) == {"class_type": "ImagePromptLegacyEncoder", "inputs": FIRST}
    assert renewed("IPAdapterEncoder", SECOND) == {"class_type": "IPAdapterEncoder", "inputs": SECOND}


def test_its_oldest_layout_is_known_too():
    node = renewed("IPAdapterEncoder", {"clip_vision": ["1", 0], "image": ["2", 0], "plus": True})
    assert node["class_type"] == "ImagePromptLegacyEncoder"
    assert node["inputs"] == {
        "clip_vision": ["1", 0],
        "image_1": ["2", 0],
        "ipadapter_plus": True,
        "noise": 0.0,
    }


def test_without_our_node_it_is_left_alone():
    assert renewed("IPAdapterEncoder", FIRST, classes={})["class_type"] == "IPAdapterEncoder"
