"""The Regions node: each region is steered by its own, as a chain of Applies with masks would."""

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from image_prompt.nodes.inputs import Either
from support import tiny
from support.parity import call
from support.prompts import make_adapter
from support.sampling import prompts, sample

from nodes import ConditioningCombine, ConditioningSetMask

HALVES = "box 0,0,0.5,1 weight 0.5; box 0.5,0,0.5,1"
DEFAULTS = {"width": 128, "height": 128, "regions": HALVES, "overlap": "later on top", "weight": 0.8}


def regions(model, **given):
    return OURS["ImagePromptRegions"]().apply(model=model, **{**DEFAULTS, **given})


def halves():
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
    return left, 1 - left


def test_it_equals_a_chain_of_applies_with_masks(sd15, sd15_prompt, other_sd15):
    left, right = halves()
    chain = call("ImagePromptApply", sd15, sd15_prompt, weight=0.4, mask=left, end_at=0.5)
    chain = call("ImagePromptApply", chain, other_sd15, weight=0.8, mask=right, end_at=0.5)
    node = regions(sd15, image_prompt_1=sd15_prompt, image_prompt_2=other_sd15, end_at=0.5)[0]
    assert torch.equal(sample(node, tiny.SD15), sample(chain, tiny.SD15))


@pytest.fixture(scope="module")
def other_sd15(encoder):
    return host.encode_prompt(make_adapter("plus", tiny.SD15), encoder, host.Reference(tiny.picture(5)))


def test_a_picture_is_encoded_as_the_encoder_node_does(sd15, encoder):
    adapter, picture = make_adapter("base", tiny.SD15), tiny.picture(1)
    encoded = call("ImagePromptEncode", adapter, encoder, picture)
    parts = {"ipadapter": adapter, "clip_vision": encoder}
    one = regions(sd15, image_prompt_2=picture, **parts)[0]
    other = regions(sd15, image_prompt_2=encoded)[0]
    assert torch.equal(sample(one, tiny.SD15), sample(other, tiny.SD15))


def test_the_masks_are_the_regions_and_what_is_left(sd15):
    drawn = "box 0,0,0.5,1; box 0.75,0,0.25,1"
    model, masks, rest, first, second, third, *_ = regions(sd15, regions=drawn, width=64, height=32)
    assert masks.shape == (2, 32, 64)
    assert torch.equal(torch.cat((first, second)), masks)
    assert torch.equal(first + second + rest, torch.ones(1, 32, 64))
    assert rest[0, 0].tolist() == [0] * 32 + [1] * 16 + [0] * 16
    assert third.max() == 0
    assert torch.equal(sample(model, tiny.SD15), sample(sd15, tiny.SD15))
    assert len(OURS["ImagePromptRegions"].RETURN_TYPES) == len(regions(sd15))


def test_texts_of_their_own_go_through_the_hosts_masks(sd15, sd15_prompt):
    """Both texts alike, in the regions and in what is left: the picture of that text everywhere."""
    model, _, rest, left, right, *_ = regions(sd15, image_prompt_1=sd15_prompt)
    positive, negative = prompts(tiny.SD15)
    texts = [ConditioningSetMask().append(positive, mask, "default", 1.0)[0] for mask in (left, right, rest)]
    (both,) = ConditioningCombine().combine(*texts[:2])
    same_text = sample(model, tiny.SD15, conds=(both, negative))
    assert torch.allclose(same_text, sample(model, tiny.SD15), atol=1e-4)
    (other,) = ConditioningCombine().combine(
        texts[0], ConditioningSetMask().append(negative, right, "default", 1.0)[0]
    )
    assert not torch.allclose(sample(model, tiny.SD15, conds=(other, negative)), same_text, atol=1e-2)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"regions": "box 0,0,1,1"}, SettingError, "image_prompt_2 is connected, but region 2 is not drawn"),
        (
            {"regions": "box 0,0,1,1; weight 1"},
            SettingError,
            "image_prompt_2 is connected, but region 2 is not",
        ),
        ({"regions": "box 0,0,1,1; box 1,0,1,1"}, SettingError, "region 2 covers nothing"),
        (
            {"regions": "box 0,0,1,1; box 0,0,1,1 erase 1 0,0 1,1 1,0 0,1 0.5,0"},
            SettingError,
            "region 2 covers",
        ),
        ({"regions": "box 0,0,1"}, SettingError, "region 1 has 'box 0,0,1'"),
        ({"overlap": "none"}, SettingError, "later on top"),
        ({"start_at": 0.5, "end_at": 0.2}, SettingError, "start_at may not exceed end_at"),
        ({"image_prompt_2": tiny.picture(1)}, MismatchError, "Connect ipadapter and clip_vision"),
        ({"image_prompt_2": 7}, MismatchError, "image_prompt_2 is "),
    ],
)
def test_what_cannot_be_done_is_a_sentence(sd15, sd15_prompt, given, error, sentence):
    with pytest.raises(error, match=sentence):
        regions(sd15, **{"image_prompt_2": sd15_prompt, **given})


def test_a_region_under_another_is_a_sentence(sd15, sd15_prompt):
    text = "box 0,0,1,1; box 0,0,1,1"
    with pytest.raises(SettingError, match="region 1 covers nothing"):
        regions(sd15, regions=text, image_prompt_1=sd15_prompt)
    assert regions(sd15, regions=text, overlap="shared", image_prompt_1=sd15_prompt)


def test_a_picture_for_faces_needs_its_own_encoder_node(sd15, encoder):
    adapter = make_adapter("faceid", tiny.SD15)
    with pytest.raises(MismatchError, match="Encode Face"):
        regions(sd15, image_prompt_1=tiny.picture(1), ipadapter=adapter, clip_vision=encoder)


def test_either_type_joins_each_of_its_kinds_on_hosts_that_compare_by_inequality():
    either = Either("IMAGE_PROMPT,IMAGE")
    assert (either != "IMAGE") is False
    assert (either != "IMAGE_PROMPT") is False
    assert either != "MASK"
    assert {either: 1}["IMAGE_PROMPT,IMAGE"] == 1
