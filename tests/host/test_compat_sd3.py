"""Slickytail's node for SD3.5 equals our own Apply, and packs that run blocks in a way of their own get a sentence."""

import pytest
import torch
from helpers.beside import near
from helpers.sd3 import IMAGE, adapter_of, prompt_of
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes.compat import node_classes
from image_prompt.nodes.compat.values import pipeline
from support import joint_transformer, tiny_sd3


def seen(penultimate):
    """What CLIPVisionEncode gives."""
    return {"penultimate_hidden_states": penultimate, "image_embeds": penultimate.mean(1)}


def apply(model, output, weight=0.8, *window):
    node = node_classes()["ApplyIPAdapterSD3"]()
    loaded = pipeline({"file": None, "model": adapter_of()})
    return node.apply_ipadapter(model, loaded, output, weight, *window)[0]


@pytest.fixture
def output():
    """Of the numbers that prompt_of has."""
    generator = torch.Generator().manual_seed(1)
    return seen(torch.randn(1, IMAGE, tiny_sd3.FEATURE, generator=generator))


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_it_is_ours_with_zeros_for_no_image(sd3_world, sd3_model, output, cfg):
    expected = host.apply_prompt(sd3_model, prompt_of(), 0.8)
    steered = sd3_world.sample(apply(sd3_model, output), cfg=cfg)
    assert near(steered, sd3_world.sample(expected, cfg=cfg))
    assert not near(steered, sd3_world.sample(sd3_model, cfg=cfg))


def test_start_and_end_are_fractions_of_sampling(sd3_world, sd3_model, output):
    expected = host.apply_prompt(sd3_model, prompt_of(), 0.8, 0.0, 0.5)
    assert near(sd3_world.sample(apply(sd3_model, output, 0.8, 0.0, 0.5)), sd3_world.sample(expected))


def test_another_encoders_output_is_a_sentence(sd3_model):
    wrong = seen(torch.zeros(1, IMAGE, 7))
    with pytest.raises(MismatchError, match="but sd35-7 reads penultimate_hidden_states of width"):
        apply(sd3_model, wrong)


def test_attention_that_is_handed_no_options_gets_a_sentence(sd3_world, sd3_model, output, monkeypatch):
    """As of packs with copies of the model's forward: without them nothing would be added, in silence."""
    if sd3_world.make is not joint_transformer.stand_in:
        pytest.skip("the stand-in's attention is exchanged; the host's own is run beside real packs")
    without = joint_transformer.attend
    monkeypatch.setattr(joint_transformer, "attend", lambda *given: without(*given[:-1], {}))
    with pytest.raises(MismatchError, match="in a way of its own"):
        sd3_world.sample(apply(sd3_model, output))
