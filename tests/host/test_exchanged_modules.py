"""Attentions and UNets that another node exchanged: named before sampling starts."""

import copy

import pytest
import torch
from helpers.rows import near, with_wrappers
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from support import tiny
from support.sampling import sample


class Sharing(torch.nn.Module):
    """An attention without projections of its own, as layer diffusion puts in place of the block's."""

    def forward(self, x, context=None, value=None, **_):
        return x


def exchanged(model, module, name="input_blocks.1.1.transformer_blocks.0.attn2"):
    model = model.clone()
    model.add_object_patch(f"diffusion_model.{name}", module)
    return model


def test_an_attention_that_another_node_exchanged_is_named_at_apply(sd15, sd15_prompt):
    with pytest.raises(MismatchError, match=r"input_blocks\.1.*is a Sharing.*no to_q"):
        host.apply_prompt(exchanged(sd15, Sharing()), sd15_prompt, 1.0)


@with_wrappers
def test_or_before_sampling_starts_where_that_node_comes_later(sd15, sd15_prompt):
    ours = exchanged(host.apply_prompt(sd15, sd15_prompt, 1.0), Sharing())
    ours.set_model_unet_function_wrapper(lambda *_: pytest.fail("the model was called"))
    with pytest.raises(MismatchError, match=r"is a Sharing.*no to_q"):
        sample(ours, tiny.SD15, steps=1)


def test_an_exchanged_attention_with_its_projections_works(sd15, sd15_prompt):
    plain = sample(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15, steps=1)
    unet = sd15.get_model_object("diffusion_model")
    twin = copy.deepcopy(unet.input_blocks[1][1].transformer_blocks[0].attn2)
    ours = sample(host.apply_prompt(exchanged(sd15, twin), sd15_prompt, 1.0), tiny.SD15, steps=1)
    assert near(ours, plain)


def test_what_another_branch_left_in_place_is_not_this_models(sd15, sd15_prompt):
    """The host takes object patches off when the next model is loaded, and not before."""
    usual = sample(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15, steps=1)
    sample(exchanged(sd15, Sharing()), tiny.SD15, steps=1)
    assert near(sample(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15, steps=1), usual)


@with_wrappers
def test_a_unet_exchanged_behind_apply_is_noticed_before_sampling_starts(sd15, sd15_prompt):
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0)
    ours.add_object_patch("diffusion_model", tiny.host_model(tiny.SDXL).get_model_object("diffusion_model"))
    with pytest.raises(MismatchError, match="16 attentions for it, and the one that samples has 70"):
        sample(ours, tiny.SD15, steps=1)
