"""Image prompts on SD3.5: on the host's own model where it has the hooks, and on a stand-in everywhere."""

from dataclasses import replace

import pytest
import torch
from helpers.beside import near
from helpers.sd3 import BLOCKS, IMAGE, adapter_of, prompt_of
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny_sd3
from support.prompts import Reads, counted_residuals


@pytest.fixture
def world(sd3_world):
    return sd3_world


@pytest.fixture
def model(sd3_model):
    return sd3_model


@pytest.fixture
def prompt(sd3_prompt):
    return sd3_prompt


@pytest.fixture
def computed(monkeypatch):
    """Images whose K' and V' were computed, one entry each time."""
    calls, plain = [], host.HostAdapter.keys_values_at

    def counted(self, features, *args):
        calls.append(len(features))
        return plain(self, features, *args)

    monkeypatch.setattr(host.HostAdapter, "keys_values_at", counted)
    return calls


# --- each step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_every_site_is_called_once_a_step_and_computes_once_for_all(
    world, model, prompt, cfg, monkeypatch, computed
):
    with counted_residuals(monkeypatch) as calls:
        steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=3, cfg=cfg)
    assert (len(calls), set(calls.values())) == (BLOCKS, {3})
    assert computed == [1 if cfg == 1 else 2] * 3
    assert not near(steered, world.sample(model, steps=3, cfg=cfg))


def test_at_full_count(world, monkeypatch):
    model = world.make(tiny_sd3.RELEASED)
    prompt = prompt_of(adapter=adapter_of(blocks=tiny_sd3.RELEASED))
    assert prompt.adapter.spec.family == host.base_family(model) == "SD3.5 Large"
    with counted_residuals(monkeypatch) as calls:
        world.sample(host.apply_prompt(model, prompt, 0.8), steps=1)
    assert (len(calls), calls.total()) == (38, 38)


def test_regions_of_one_prompt_compute_once(world, model, prompt, computed):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(host.apply_prompt(model, prompt, 0.8, mask=mask), prompt, 0.8, mask=1 - mask)
    world.sample(parts, steps=3)
    assert computed == [2] * 3


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.0, 0.9)])
def test_at_most_one_read_a_step(world, model, prompt, window):
    patched, counts = host.apply_prompt(model, prompt, 0.8, *window), []
    for each in (model, patched):
        for steps in (2, 6):
            with Reads() as reads:
                world.sample(each, steps=steps)
            counts.append(reads.count)
    plain, ours = (counts[1] - counts[0]) / 4, (counts[3] - counts[2]) / 4
    assert ours - plain <= (window != (0.0, 1.0))


# --- nothing ----------------------------------------------------------------------------------------------------------


def test_weight_0_changes_nothing(world, model, prompt):
    assert torch.equal(world.sample(host.apply_prompt(model, prompt, 0.0)), world.sample(model))


def test_the_window_covers_each_step_once(world, model, prompt, computed):
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), steps=4)
    first = host.apply_prompt(model, prompt, 0.8, 0.0, 0.5)
    both = host.apply_prompt(first, prompt, 0.8, 0.5, 1.0)
    assert torch.equal(world.sample(both, steps=4), whole)
    computed.clear()
    assert not near(world.sample(first, steps=4), whole)
    assert 0 < len(computed) < 4
    never = host.apply_prompt(model, prompt, 0.8, 0.999, 0.9999)
    assert torch.equal(world.sample(never, steps=2), world.sample(model, steps=2))


def run_node(name, **inputs):
    node = NODE_CLASS_MAPPINGS[name]()
    return getattr(node, node.FUNCTION)(**inputs)[0]


def test_a_curve_is_a_weight_in_each_step(world, model, prompt):
    patched = run_node(
        "ImagePromptApply", model=model, image_prompt=prompt, weight=0.8, weight_curve="0:0.5, 1:0.5"
    )
    assert near(world.sample(patched), world.sample(host.apply_prompt(model, prompt, 0.4)))


def test_clones_and_siblings_stay_as_they_were(world, model, prompt):
    """A/B/A, and a branch that is bypassed."""
    plain = world.sample(model)
    one = host.apply_prompt(model, prompt, 0.8)
    first = world.sample(one)
    other = host.apply_prompt(one, prompt_of(2), 0.4)
    assert not near(world.sample(other), first)
    assert torch.equal(world.sample(one), first)
    assert torch.equal(world.sample(model), plain)
    assert torch.equal(world.sample(one.clone()), first)


def test_negated_adds_nothing_to_the_positive(world, model, prompt):
    patched = host.apply_prompt(model, prompt.negated, 0.8)
    assert torch.equal(world.sample(patched, cfg=1.0), world.sample(model, cfg=1.0))
    assert not near(world.sample(patched, cfg=3.0), world.sample(model, cfg=3.0))


def test_no_image_is_not_the_same_as_nothing(world, model, prompt):
    """Guided at 0, a step is what the negative alone says: there stand zero features, which the sites do attend to."""
    steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=1, cfg=0.0)
    assert not near(steered, world.sample(model, steps=1, cfg=0.0))
    assert near(steered, world.sample(host.apply_prompt(model, prompt_of(2), 0.8), steps=1, cfg=0.0))


# --- where and whose --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_masks_add_up(world, model, prompt, size):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(model, prompt, 0.8, mask=mask)
    parts = host.apply_prompt(parts, prompt, 0.8, mask=1 - mask)
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), size=size)
    assert near(world.sample(parts, size=size), whole)


def test_a_mask_keeps_a_prompt_in_its_place(world, model, prompt):
    mask = torch.zeros(1, 64, 96)
    mask[:, :, :48] = 1
    weights = {f"joint {n}": float(n == BLOCKS - 1) for n in range(BLOCKS)}
    masked = host.apply_prompt(model, prompt, 1.0, mask=mask, layer_weights=weights)
    change = (world.sample(masked, steps=1, cfg=1.0) - world.sample(model, steps=1, cfg=1.0)).abs()
    assert change[..., :6].mean() > 0
    assert change[..., 6:].max() == 0


def test_images_for_another_number_of_pictures_are_refused(world, model):
    prompt = prompt_of(images=2, arrange=Arrange.ONE_EACH)
    with pytest.raises(MismatchError, match="2 images, one per picture, but 3 pictures"):
        world.sample(host.apply_prompt(model, prompt, 0.8), pictures=3)


def test_a_batch_gives_what_its_pictures_give_alone(world, model):
    prompt = prompt_of(images=2, arrange=Arrange.ONE_EACH)
    first = replace(prompt, cond=prompt.cond[:1], value_scale=prompt.value_scale[:1])
    together = world.sample(host.apply_prompt(model, prompt, 0.8), pictures=2)
    alone = world.sample(host.apply_prompt(model, first, 0.8), pictures=2)
    assert near(together[:1], alone[:1])
    assert not near(together[1:], alone[1:])


def test_several_images_stand_beside_one_zero_image(world, model):
    """Fewer keys on the negative's rows, in the same call: filled up with keys that are hidden."""
    prompt = prompt_of(images=3)
    assert prompt.uncond.shape[1] == IMAGE
    steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=1, cfg=0.0)
    assert near(steered, world.sample(host.apply_prompt(model, prompt_of(2), 0.8), steps=1, cfg=0.0))


def test_an_image_of_weight_0_keeps_its_keys_and_one_alone_adds_nothing(world, model):
    plain = world.sample(model, cfg=1.0)
    nothing = prompt_of(image_weights=[0.0])
    assert torch.equal(world.sample(host.apply_prompt(model, nothing, 0.8), cfg=1.0), plain)
    halved = host.apply_prompt(model, prompt_of(image_weights=[0.5]), 0.8)
    assert near(
        world.sample(halved, cfg=1.0), world.sample(host.apply_prompt(model, prompt_of(), 0.4), cfg=1.0)
    )
    one, other = (prompt_of(images=2, image_weights=weights) for weights in ([1.0, 0.0], [1.0, 1.0]))
    one, other = (world.sample(host.apply_prompt(model, each, 0.8), cfg=1.0) for each in (one, other))
    assert not near(one, other)


def test_the_order_of_two_adapters_does_not_matter(world, model):
    one, other = prompt_of(1), prompt_of(2, adapter=adapter_of(8))
    there = host.apply_prompt(host.apply_prompt(model, one, 0.8), other, 0.6)
    back = host.apply_prompt(host.apply_prompt(model, other, 0.6), one, 0.8)
    assert near(world.sample(there), world.sample(back))
    assert not near(world.sample(there), world.sample(host.apply_prompt(model, one, 0.8)))
