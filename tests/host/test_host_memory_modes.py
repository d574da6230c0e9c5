"""The host's ways to save time or memory beside an image prompt: caches of steps, models loaded in part."""

import pytest
import torch
from image_prompt import host
from support import tiny
from support.sampling import sample


def step_caches():
    """EasyCache and LazyCache where the host has them; without a threshold no step is skipped."""
    caches = {"none": lambda model, threshold: model}
    try:
        from comfy_extras import nodes_easycache
    except ImportError:
        return caches
    for name in ("EasyCacheNode", "LazyCacheNode"):
        node = getattr(nodes_easycache, name)
        caches[name] = lambda model, threshold, node=node: node.execute(
            model, threshold, 0.0, 1.0, False
        ).result[0]
    return caches


CACHES = step_caches()


def prompted(model, prompt):
    return host.apply_prompt(model, prompt, 1.0, 0.2, 0.8, mask=torch.ones(1, 16, 16).tril())


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_that_skips_no_step_changes_nothing(sd15, sd15_prompt, cache):
    patched = prompted(sd15, sd15_prompt)
    assert torch.equal(sample(CACHES[cache](patched, 0.0), tiny.SD15, 6), sample(patched, tiny.SD15, 6))


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_works_the_same_before_and_after_the_prompt_and_holds_nothing_over(sd15, sd15_prompt, cache):
    after = CACHES[cache](prompted(sd15, sd15_prompt), 0.3)
    before = prompted(CACHES[cache](sd15, 0.3), sd15_prompt)
    first = sample(after, tiny.SD15, 6)
    assert torch.equal(sample(before, tiny.SD15, 6), first)
    assert torch.equal(sample(after, tiny.SD15, 6), first)
    assert not torch.equal(sample(CACHES[cache](sd15, 0.3), tiny.SD15, 6), first)
    skips = not torch.equal(sample(CACHES[cache](prompted(sd15, sd15_prompt), 0.0), tiny.SD15, 6), first)
    assert skips == (cache != "none")


@pytest.mark.parametrize("budget", [1, 4 * 2**20])
def test_a_model_loaded_in_part_samples_the_same(model, family, prompt, budget):
    patched = prompted(model, prompt)
    whole = tiny.run_unet(patched, family)
    patched.load(torch.device("cpu"), lowvram_model_memory=budget)
    assert patched.model.model_lowvram
    try:
        assert torch.equal(tiny.run_unet(patched, family), whole)
    finally:
        getattr(patched, "detach", patched.unpatch_model)()
    assert torch.equal(tiny.run_unet(patched, family), whole)
