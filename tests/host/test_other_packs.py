"""Other packs' patches in our slots and ours in theirs."""

import comfy.model_patcher
import pytest
import torch
from image_prompt import host
from image_prompt.host.attach import unet as patches
from support import tiny

BLOCK_SLOT, SLOT = (
    ("middle", 0, 0),
    ("middle", 0),
)  # transformers of SD1.5 have one block: packs use the short one

HAS_WRAPPERS = hasattr(comfy.model_patcher.ModelPatcher, "add_wrapper_with_key")  # December 2024


class Addable:
    """The shape of the patch that the de-facto pack and its relatives use: callbacks that are added up."""

    def __init__(self, callback, **kwargs):
        self.callback, self.kwargs = [callback], [kwargs]

    def add(self, callback, **kwargs):
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q, k, v, extra_options):
        out = host.text_attention(q, k, v, extra_options)
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def shift(out, q, k, v, extra_options, **kwargs):
    """A callback of another pack, of known effect."""
    return torch.full_like(out, kwargs.get("amount", 0.25))


def plain(q, k, v, extra_options):
    return host.text_attention(q, k, v, extra_options) + 0.25


def with_patch(model, patch, slot=SLOT):
    twin = model.clone()
    twin.set_model_attn2_replace(patch, *slot)
    return twin


@pytest.fixture(scope="module")
def expected(sd15, sd15_prompt):
    """Both effects, from the slot's own arithmetic: our residual on top of the shifted text attention."""
    return tiny.run_unet(host.apply_prompt(with_patch(sd15, plain), sd15_prompt, 1.0), tiny.SD15)


def test_the_expected_output_has_both_effects(sd15, sd15_prompt, expected):
    ours = tiny.run_unet(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15)
    theirs = tiny.run_unet(with_patch(sd15, plain), tiny.SD15)
    assert (expected - ours).abs().max() > 1e-3
    assert (expected - theirs).abs().max() > 1e-3


@pytest.mark.parametrize(
    "slot", [BLOCK_SLOT, SLOT], ids=["slot of the block", "slot of the whole transformer"]
)
def test_their_addable_patch_comes_first(sd15, sd15_prompt, expected, slot):
    patched = host.apply_prompt(with_patch(sd15, Addable(shift), slot), sd15_prompt, 1.0)
    assert torch.allclose(tiny.run_unet(patched, tiny.SD15), expected, atol=2e-5)


def slot_of(model, slot=SLOT):
    return model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {}).get(slot)


def joined(model, **kwargs):
    """As the de-facto pack, InstantID and PuLID do it: added to what stands in the slot, else a patch of their own."""
    twin = model.clone()
    if slot_of(twin) is None:
        twin.set_model_attn2_replace(Addable(shift, **kwargs), *SLOT)
    else:
        slot_of(twin).add(shift, **kwargs)
    return twin


def test_they_join_afterwards(sd15, sd15_prompt, expected):
    theirs = joined(host.apply_prompt(sd15, sd15_prompt, 1.0), amount=0.25, sigma_end=0.0)
    assert torch.allclose(tiny.run_unet(theirs, tiny.SD15), expected, atol=2e-5)


def test_they_wrap_what_stands_there_afterwards(sd15, sd15_prompt, expected):
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0)
    there = slot_of(patched) or host.text_attention
    wrapped = with_patch(patched, lambda q, k, v, options: there(q, k, v, options) + 0.25)
    assert torch.allclose(tiny.run_unet(wrapped, tiny.SD15), expected, atol=2e-5)


@pytest.mark.skipif(
    not HAS_WRAPPERS, reason="hosts of August 2024 have one slot, and who writes it last has it"
)
@pytest.mark.parametrize("slot", [BLOCK_SLOT, SLOT])
def test_a_later_pack_that_overwrites_the_slot_does_not_take_the_image_out(sd15, sd15_prompt, expected, slot):
    patched = with_patch(host.apply_prompt(sd15, sd15_prompt, 1.0), plain, slot)
    assert torch.allclose(tiny.run_unet(patched, tiny.SD15), expected, atol=2e-5)


@pytest.mark.skipif(HAS_WRAPPERS, reason="later hosts' slots are not written")
def test_a_guest_is_left_out_outside_its_own_window(sd15, sd15_prompt):
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0)
    alone = tiny.run_unet(patched, tiny.SD15)
    twin = joined(patched, sigma_start=0.5, sigma_end=0.0)
    assert torch.equal(tiny.run_unet(twin, tiny.SD15, sigma=1.0), alone)


def test_what_they_add_downstream_does_not_reach_the_branch_it_came_from(sd15, sd15_prompt):
    parent = host.apply_prompt(sd15, sd15_prompt, 1.0)
    alone = tiny.run_unet(parent, tiny.SD15)
    child, sibling = joined(parent, amount=5.0), parent.clone().clone()
    assert not torch.equal(tiny.run_unet(child, tiny.SD15), alone)
    assert torch.equal(tiny.run_unet(parent, tiny.SD15), alone)
    assert torch.equal(tiny.run_unet(sibling, tiny.SD15), alone)


def keeping(given):
    """An attention that keeps what it gave, to give it again in later steps, as caching packs do."""

    def attention(*inputs):
        out = host.text_attention(*inputs)
        given.append((out, out.clone()))
        return out

    return attention


def test_what_another_packs_patch_gave_is_not_written_on(sd15, sd15_prompt):
    given = []
    patched = host.apply_prompt(with_patch(sd15, keeping(given)), sd15_prompt, 1.0)
    tiny.run_unet(host.apply_prompt(patched, sd15_prompt, 1.0), tiny.SD15)
    assert len(given) == 1
    assert torch.equal(*given[0])


def test_what_an_attention_override_gave_is_not_written_on(sd15, sd15_prompt, monkeypatch):
    given = []
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0)
    patched.model_options["transformer_options"][patches.OVERRIDE] = lambda attention, *inputs, **options: (
        attention(*inputs, **options)
    )
    monkeypatch.setattr(
        patches, "text_attention", keeping(given)
    )  # hosts that know overrides run them in there
    tiny.run_unet(patched, tiny.SD15)
    assert len(given) == tiny.SD15.sites
    assert all(torch.equal(*pair) for pair in given)
