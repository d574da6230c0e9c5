"""The patched UNet in the real host, one forward: what is called, what stays bit-identical, what is independent."""

import copy
import dataclasses

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.prompt import Arrange
from support import tiny
from support.prompts import Reads, counted_residuals


def difference(a, b):
    return (a - b).abs().max().item()


def test_every_site_is_called_once_the_middle_block_included(model, family, prompt, monkeypatch):
    patched = host.apply_prompt(model, prompt, 1.0)
    carried = host.residuals_of(patched)
    assert len(carried) == family.sites
    assert ("middle", 0) in carried
    with counted_residuals(monkeypatch) as calls:
        tiny.run_unet(patched, family)
    assert len(calls) == calls.total() == family.sites


def test_weight_zero_is_bit_identical_to_the_base_model(model, family, prompt):
    assert torch.equal(
        tiny.run_unet(host.apply_prompt(model, prompt, 0.0), family), tiny.run_unet(model, family)
    )


def test_weight_zero_does_not_even_compute_the_keys(model, prompt, monkeypatch):
    fresh = dataclasses.replace(prompt)
    monkeypatch.setattr(host.HostAdapter, "keys_values", lambda *_: pytest.fail("computed for nothing"))
    host.apply_prompt(model, fresh, 0.0)


def test_outside_the_window_it_is_bit_identical_even_if_the_adapter_would_give_nan(model, family, prompt):
    broken = copy.copy(prompt)
    broken.__dict__["keys_values"] = tuple(
        (k * float("nan"), v * float("nan")) for k, v in prompt.keys_values
    )
    patched = host.apply_prompt(model, broken, 1.0, start_at=0.5)
    before, after = 10.0, 0.1
    assert torch.equal(
        tiny.run_unet(patched, family, sigma=before), tiny.run_unet(model, family, sigma=before)
    )
    assert tiny.run_unet(patched, family, sigma=after).isnan().any()


def test_an_image_changes_the_output(model, family, prompt):
    assert (
        difference(tiny.run_unet(host.apply_prompt(model, prompt, 1.0), family), tiny.run_unet(model, family))
        > 0.1
    )


def test_parents_and_siblings_are_untouched(model, family, prompt, other_prompt):
    base = tiny.run_unet(model, family)
    first = host.apply_prompt(model, prompt, 1.0)
    alone = tiny.run_unet(first, family)
    second = host.apply_prompt(first, other_prompt, 1.0)
    assert difference(tiny.run_unet(second, family), alone) > 0.01
    assert torch.equal(tiny.run_unet(first, family), alone)
    assert torch.equal(tiny.run_unet(model, family), base)
    assert "patches_replace" not in model.model_options["transformer_options"]


def test_clones_share_the_tensors_of_the_prompt(model, prompt):
    def keys(patcher):
        return host.residuals_of(patcher)["middle", 0][0].site.keys

    patched = host.apply_prompt(model, prompt, 1.0)
    assert keys(patched.clone().clone()) is keys(patched)


def test_the_order_of_two_adapters_does_not_matter(model, family, prompt, other_prompt):
    one = host.apply_prompt(host.apply_prompt(model, prompt, 0.7), other_prompt, 0.5)
    two = host.apply_prompt(host.apply_prompt(model, other_prompt, 0.5), prompt, 0.7)
    assert difference(tiny.run_unet(one, family), tiny.run_unet(two, family)) < 2e-5


@pytest.mark.parametrize("chunks", [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 2)])
def test_each_chunk_equals_the_run_of_that_chunk_alone(model, family, prompt, chunks):
    patched = host.apply_prompt(model, prompt, 1.0)
    together = tiny.run_unet(patched, family, chunks).chunk(len(chunks))
    for chunk, part in zip(chunks, together, strict=True):
        assert difference(part, tiny.run_unet(patched, family, (chunk,))) < 2e-5


def test_a_batch_equals_its_pictures_one_by_one(model, family, prompt):
    patched = host.apply_prompt(model, prompt, 1.0)
    batch = tiny.run_unet(patched, family, (1, 0), pictures=3)
    single = tiny.run_unet(patched, family, (1, 0), pictures=1)
    assert difference(batch[[0, 3]], single) < 2e-5


def test_one_image_per_picture_steers_that_picture_only(model, family, prompt, encoder):
    pictures = tiny.picture(4, count=3)
    each = host.encode_prompt(
        prompt.adapter, encoder, host.Reference(pictures), encoding=host.Encoding(Arrange.ONE_EACH)
    )
    batch = tiny.run_unet(host.apply_prompt(model, each, 1.0), family, (0, 1), pictures=3)
    for n in range(3):
        own = host.encode_prompt(prompt.adapter, encoder, host.Reference(pictures[n : n + 1]))
        alone = tiny.run_unet(host.apply_prompt(model, own, 1.0), family, (0, 1), pictures=3)
        assert difference(batch[[n, n + 3]], alone[[n, n + 3]]) < 2e-5


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (17, 23)])
def test_a_mask_and_its_inverse_with_the_same_image_equal_no_mask(sd15, sd15_prompt, size):
    mask = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(2))
    both = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=mask)
    both = host.apply_prompt(both, sd15_prompt, 1.0, mask=1 - mask)
    whole = host.apply_prompt(sd15, sd15_prompt, 1.0)
    assert (
        difference(tiny.run_unet(both, tiny.SD15, size=size), tiny.run_unet(whole, tiny.SD15, size=size))
        < 2e-5
    )


def test_only_the_window_reads_a_number_from_the_device_and_once_per_step(
    model, family, prompt, other_prompt
):
    whole = host.apply_prompt(host.apply_prompt(model, prompt, 1.0), other_prompt, 1.0)
    part = host.apply_prompt(host.apply_prompt(model, prompt, 1.0, 0.1, 0.9), other_prompt, 1.0, 0.0, 0.5)
    for patched, reads in ((model, 0), (whole, 0), (part, 1)):
        tiny.run_unet(patched, family)
        with Reads() as counter:
            tiny.run_unet(patched, family)
        assert counter.count == reads


def test_a_change_of_weight_mask_or_window_computes_no_keys_again(model, prompt, monkeypatch):
    host.apply_prompt(model, prompt, 1.0)
    monkeypatch.setattr(host.HostAdapter, "keys_values", lambda *_: pytest.fail("computed again"))
    host.apply_prompt(model, prompt, 0.3, 0.2, 0.8, "ease in", torch.ones(1, 8, 8))


def test_the_host_models_weights_are_never_written(sd15, sd15_prompt):
    unet = sd15.get_model_object("diffusion_model")
    before = {key: (tensor.data_ptr(), tensor.sum().item()) for key, tensor in unet.state_dict().items()}
    tiny.run_unet(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15)
    assert before == {k: (t.data_ptr(), t.sum().item()) for k, t in unet.state_dict().items()}
