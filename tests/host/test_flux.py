"""Image prompts on Flux through our nodes: on the host's own model where it has the hooks, and on a stand-in everywhere."""

from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from helpers.beside import (
    assert_attention_runs_as_often,
    assert_patch_runs_as_often,
    foreign,
    has_hooks,
    near,
    skip,
)
from helpers.flux import DOUBLE, SINGLE, OnHost, StandIn, prompt_of
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny, tiny_flux, transformer
from support.prompts import counted_residuals


@pytest.fixture(params=["stand-in", pytest.param("host", marks=has_hooks)])
def world(request, monkeypatch):
    if request.param == "host":
        return OnHost
    transformer.install_hooks(monkeypatch)
    return StandIn


@pytest.fixture
def model(world):
    return world.make()


@pytest.fixture(params=["xlabs", "instantx"])
def kind(request):
    return request.param


@pytest.fixture
def prompt(kind):
    return prompt_of(kind)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_every_site_is_called_once_a_step(world, model, kind, prompt, cfg, monkeypatch):
    with counted_residuals(monkeypatch) as calls:
        steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=3, cfg=cfg)
    sites = DOUBLE if kind == "xlabs" else DOUBLE + SINGLE
    assert (len(calls), set(calls.values())) == (sites, {3})
    assert not near(steered, world.sample(model, steps=3, cfg=cfg))


def test_weight_0_changes_nothing(world, model, prompt):
    assert torch.equal(world.sample(host.apply_prompt(model, prompt, 0.0)), world.sample(model))


def test_the_window_covers_each_step_once(world, model, prompt):
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), steps=4)
    first = host.apply_prompt(model, prompt, 0.8, 0.0, 0.5)
    both = host.apply_prompt(first, prompt, 0.8, 0.5, 1.0)
    assert torch.equal(world.sample(both, steps=4), whole)
    assert not near(world.sample(first, steps=4), whole)
    never = host.apply_prompt(model, prompt, 0.8, 0.999, 0.9999)
    assert torch.equal(world.sample(never, steps=2), world.sample(model, steps=2))


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_masks_add_up(world, model, prompt, size):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(model, prompt, 0.8, mask=mask)
    parts = host.apply_prompt(parts, prompt, 0.8, mask=1 - mask)
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), size=size)
    assert near(world.sample(parts, size=size), whole)


def test_a_mask_keeps_a_prompt_in_its_place(world, model):
    """Of XLabs, in the last double block, nothing but the masked tokens changes in one step, but for later blocks."""
    mask = torch.zeros(1, 64, 96)
    mask[:, :, :48] = 1
    weights = {f"double {n}": float(n == DOUBLE - 1) for n in range(DOUBLE)}
    masked = host.apply_prompt(model, prompt_of("xlabs"), 1.0, mask=mask, layer_weights=weights)
    change = (world.sample(masked, steps=1, cfg=1.0) - world.sample(model, steps=1, cfg=1.0)).abs()
    assert change[..., :6].mean() > 2 * change[..., 6:].mean()


def test_images_for_another_number_of_pictures_are_refused(world, model, kind):
    prompt = prompt_of(kind, images=2, arrange=Arrange.ONE_EACH)
    with pytest.raises(MismatchError, match="2 images, one per picture, but 3 pictures"):
        world.sample(host.apply_prompt(model, prompt, 0.8), pictures=3)


@pytest.mark.parametrize("masked", [False, True])
def test_reference_latents_stand_behind_the_picture(world, model, prompt, masked):
    refs = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(4))
    mask = torch.rand(1, 40, 56) if masked else None
    steered = world.sample(host.apply_prompt(model, prompt, 0.8, mask=mask), refs=refs)
    plain = world.sample(model, refs=refs)
    assert not near(steered, plain)
    assert not near(plain, world.sample(model))


def test_a_batch_gives_what_its_pictures_give_alone(world, model, kind):
    """Rows of both conditionings in one call, and the second picture's image beside the first one's."""
    prompt = prompt_of(kind, images=2, arrange=Arrange.ONE_EACH)
    first = replace(prompt, cond=prompt.cond[:1], value_scale=prompt.value_scale[:1])
    together = world.sample(host.apply_prompt(model, prompt, 0.8), pictures=2)
    alone = world.sample(host.apply_prompt(model, first, 0.8), pictures=2)
    assert near(together[:1], alone[:1])
    assert not near(together[1:], alone[1:])


def test_the_order_of_two_adapters_does_not_matter(world, model):
    one, other = prompt_of("xlabs", 1), prompt_of("instantx", 2)
    there = host.apply_prompt(host.apply_prompt(model, one, 0.8), other, 0.6)
    back = host.apply_prompt(host.apply_prompt(model, other, 0.6), one, 0.8)
    assert near(world.sample(there), world.sample(back))
    assert not near(world.sample(there), world.sample(host.apply_prompt(model, one, 0.8)))


def test_clones_and_siblings_stay_as_they_were(world, model, prompt):
    plain = world.sample(model)
    one = host.apply_prompt(model, prompt, 0.8)
    first = world.sample(one)
    other = host.apply_prompt(one, prompt, 0.4)
    world.sample(other)
    assert torch.equal(world.sample(one), first)
    assert torch.equal(world.sample(model), plain)
    assert torch.equal(world.sample(one.clone()), first)


def test_instantx_adds_nothing_to_the_negative(world, model):
    """Guided at 0, a step is what the negative alone says."""
    prompt = prompt_of("instantx")
    steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=1, cfg=0.0)
    assert torch.equal(steered, world.sample(model, steps=1, cfg=0.0))


# --- other packs ------------------------------------------------------------------------------------------------------


def test_another_packs_patch_runs_as_often_before_us_and_behind_us(world, model, prompt):
    assert_patch_runs_as_often(world, model, prompt, (("double_block", 1), ("single_block", 0)))


def test_another_packs_attention_runs_as_often(world, model, prompt):
    assert_attention_runs_as_often(world, model, prompt)


def test_a_block_that_is_left_out_adds_nothing(world, model, prompt, monkeypatch):
    places = [("double_block", n) for n in range(DOUBLE)] + [("single_block", n) for n in range(SINGLE)]
    skipped = foreign(model, skip, places)
    with counted_residuals(monkeypatch) as calls:
        assert torch.equal(world.sample(host.apply_prompt(skipped, prompt, 0.8)), world.sample(skipped))
    assert calls.total() == 0


def test_a_mask_is_laid_where_the_first_block_is_left_out(world, model):
    mask = torch.rand(1, 40, 56)
    skipped = foreign(model, skip, [("double_block", 0)])
    steered = world.sample(host.apply_prompt(skipped, prompt_of("instantx"), 0.8, mask=mask))
    assert not near(steered, world.sample(skipped))


# --- sentences --------------------------------------------------------------------------------------------------------


def test_weight_types_are_over_the_blocks_that_the_adapter_has(model):
    patched = host.apply_prompt(model, prompt_of("xlabs"), 1.0, weight_type="ease in")
    found = host.residuals_of(patched)
    assert {label for label, _ in found} == {"double 0", "double 1"}
    assert [found[f"double {n}", 0][0].site.weight for n in range(2)] == [1.0, 0.05 + 0.95 * 0.5]


@pytest.mark.parametrize(
    ("weight_type", "words"), [("weak input", "double and single"), ("style transfer", "is known for")]
)
def test_weight_types_of_unets_are_refused(model, prompt, weight_type, words):
    with pytest.raises(MismatchError, match=words):
        host.apply_prompt(model, prompt, 1.0, weight_type=weight_type)


def test_a_unet_is_refused(prompt, sd15):
    with pytest.raises(MismatchError, match=r"but the connected model is SD1\.5"):
        host.apply_prompt(sd15, prompt, 1.0)


def test_a_host_without_the_hooks_is_told_to_be_updated(model, prompt, monkeypatch):
    monkeypatch.delattr(host_attention, "wrap_attn")
    with pytest.raises(MismatchError, match="too old for image prompts on Flux"):
        host.apply_prompt(model, prompt, 1.0)


# --- through the nodes ------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter_file(tmp_path, monkeypatch):
    import folder_paths
    from safetensors.torch import save_file

    save_file(tiny_flux.xlabs(DOUBLE), str(tmp_path / "zzz.safetensors"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path)], {".safetensors"}))
    return "zzz.safetensors"


def run_node(name, **inputs):
    node = NODE_CLASS_MAPPINGS[name]()
    return getattr(node, node.FUNCTION)(**inputs)[0]


def test_a_file_under_any_name_through_the_nodes(world, model, adapter_file, encoder):
    adapter = run_node("ImagePromptLoader", ipadapter_file=adapter_file)
    prompt = run_node("ImagePromptEncode", ipadapter=adapter, clip_vision=encoder, image=tiny.picture(1))
    patched = run_node("ImagePromptApply", model=model, image_prompt=prompt, weight=0.8)
    assert not near(world.sample(patched), world.sample(model))


def test_no_image_is_a_black_picture(adapter_file, encoder):
    adapter = run_node("ImagePromptLoader", ipadapter_file=adapter_file)
    black = torch.zeros(1, 32, 32, 3)
    plain = run_node("ImagePromptEncode", ipadapter=adapter, clip_vision=encoder, image=tiny.picture(1))
    given = run_node(
        "ImagePromptEncode",
        ipadapter=adapter,
        clip_vision=encoder,
        image=tiny.picture(1),
        negative_image=black,
    )
    assert torch.equal(plain.uncond, given.uncond)
    assert torch.equal(plain.cond, given.cond)


def test_negated_adds_nothing_to_the_positive(world, model):
    """With a bias, tokens of zero have values; they must count for nothing."""
    negated = prompt_of("xlabs").negated
    steered = world.sample(host.apply_prompt(model, negated, 0.8), cfg=1.0)
    assert torch.equal(steered, world.sample(model, cfg=1.0))
