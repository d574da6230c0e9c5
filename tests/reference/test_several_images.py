"""Several images and several adapters at once."""

import pytest
import torch
from support import tiny
from support.parity import LIMIT, call, make_batch, max_error, run_host

COND = 0
# ImagePromptCombine's arithmetic, written out for weights a, b on tokens s, t
ARITHMETIC = {
    "add": lambda s, t, a, b: a * s + b * t,
    "subtract": lambda s, t, a, b: a * s - b * t,
    "average": lambda s, t, a, b: (a * s + b * t) / (a + b),
}


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_three_images_in_one_prompt_are_read_side_by_side(twins, kind):
    adapter, pictures, batch = twins.adapter(kind), tiny.picture(seed=2, count=3), make_batch(twins.family)
    oracle = twins.oracle.load(adapter.tensors)
    ours = run_host(twins.apply(twins.encode(adapter, pictures)), batch)
    theirs = oracle(batch, [twins.embeds(kind, batch, pictures)])
    assert max_error(ours, theirs, f"three images {kind} {twins.family.name}") <= LIMIT


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_concat_of_prompts_is_one_prompt_of_their_images(twins, kind):
    adapter, pictures, batch = twins.adapter(kind), tiny.picture(seed=2, count=3), make_batch(twins.family)
    oracle = twins.oracle.load(adapter.tensors)
    two, one = twins.encode(adapter, pictures[:2]), twins.encode(adapter, pictures[2:])
    both = call("ImagePromptCombine", two, "concat", 1.0, image_prompt_2=one, weight_2=1.0)
    ours, theirs = run_host(twins.apply(both), batch), oracle(batch, [twins.embeds(kind, batch, pictures)])
    assert max_error(ours, theirs, f"combine concat {kind} {twins.family.name}") <= LIMIT


@pytest.mark.parametrize("method", ARITHMETIC)
def test_combining_is_arithmetic_on_the_tokens(twins, method):
    adapter, pictures, batch = twins.adapter("plus"), tiny.picture(seed=3, count=2), make_batch(twins.family)
    prompts = [twins.encode(adapter, picture[None]) for picture in pictures]
    combined = call("ImagePromptCombine", prompts[0], method, 0.7, image_prompt_2=prompts[1], weight_2=0.4)
    oracle = twins.oracle.load(adapter.tensors)

    def arithmetic(_module, _inputs, projected):
        (tokens,) = projected  # (rows, images, t, d); 'no image' stays no image
        mixed = ARITHMETIC[method](tokens[:, 0], tokens[:, 1], 0.7, 0.4)
        rows = [mixed[n] if chunk == COND else tokens[n, 0] for n, chunk in enumerate(batch.chunks)]
        return [torch.stack(rows)[:, None]]

    hook = oracle.unet.encoder_hid_proj.register_forward_hook(arithmetic)
    theirs = oracle(batch, [twins.embeds("plus", batch, pictures)])
    hook.remove()
    ours = run_host(twins.apply(combined), batch)
    assert max_error(ours, theirs, f"combine {method} {twins.family.name}") <= LIMIT


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_one_image_for_each_picture_of_the_batch(twins, kind):
    adapter, pictures = twins.adapter(kind), tiny.picture(seed=4, count=2)
    batch = make_batch(twins.family, pictures=2)
    oracle = twins.oracle.load(adapter.tensors)
    reference = twins.reference_encoder
    nothing, images = reference.nothing(kind), reference.images(kind, pictures)
    embeds = torch.cat((nothing, nothing, images))[:, None]  # chunks (1, 0), two pictures each

    ours = run_host(twins.apply(twins.encode(adapter, pictures, arrange="one per picture")), batch)

    assert max_error(ours, oracle(batch, [embeds]), f"one per picture {kind} {twins.family.name}") <= LIMIT


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["base first", "plus first"])
def test_two_adapters_add_up_in_any_order(twins, order, called):
    kinds, weights = ("base", "plus"), (0.9, 0.6)
    adapters = [twins.adapter(kind) for kind in kinds]
    pictures = [tiny.picture(seed=5), tiny.picture(seed=6, count=2)]
    batch = make_batch(twins.family, size=(24, 40))
    oracle = twins.oracle.load(*(adapter.tensors for adapter in adapters), scale=list(weights))
    patched = twins.model
    for n in order:
        patched = twins.apply(twins.encode(adapters[n], pictures[n]), weights[n], patched)

    ours = run_host(patched, batch)
    theirs = oracle(batch, [twins.embeds(kinds[n], batch, pictures[n]) for n in (0, 1)])

    assert max_error(ours, theirs, f"two adapters {twins.family.name} {order}") <= LIMIT
    assert len(called) == len(set(called)) == 2 * twins.family.sites


def test_two_prompts_of_one_adapter_add_up(twins):
    adapter, pictures, batch = twins.adapter("base"), tiny.picture(seed=7, count=2), make_batch(twins.family)
    oracle = twins.oracle.load(adapter.tensors, adapter.tensors, scale=[0.5, 0.8])
    first = twins.apply(twins.encode(adapter, pictures[:1]), 0.5)
    patched = twins.apply(twins.encode(adapter, pictures[1:]), 0.8, first)
    theirs = oracle(batch, [twins.embeds("base", batch, picture[None]) for picture in pictures])
    assert max_error(run_host(patched, batch), theirs, f"two prompts {twins.family.name}") <= LIMIT


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masks"])
def test_four_prompts_by_one_attention_add_up(twins, masked, called):
    """Where they enter by one attention (stacking.py), beside one processor for each."""
    adapter, pictures, batch = twins.adapter("plus"), tiny.picture(seed=7, count=4), make_batch(twins.family)
    scales = [0.5, 0.8, -0.3, 0.4]
    oracle = twins.oracle.load(*[adapter.tensors] * 4, scale=scales)
    bands = torch.eye(4).repeat_interleave(32, 1).view(4, 1, 1, 128).expand(-1, 1, 128, -1).contiguous()
    patched = twins.model
    for picture, scale, band in zip(pictures, scales, bands, strict=True):
        prompt = twins.encode(adapter, picture[None])
        patched = twins.apply(prompt, scale, patched, **({"mask": band} if masked else {}))
    embeds = [twins.embeds("plus", batch, picture[None]) for picture in pictures]
    theirs = oracle(batch, embeds, [band[None] for band in bands] if masked else None)
    name = f"four prompts{', masks' * masked} {twins.family.name}"
    assert max_error(run_host(patched, batch), theirs, name) <= LIMIT
    assert len(called) == twins.family.sites


@pytest.mark.parametrize("order", [range(6), (3, 0, 4, 5, 1, 2), (5, 1, 3, 2, 0, 4)], ids=str)
def test_prompts_of_two_kinds_are_stacked_by_kind_in_any_order(twins, order, called):
    """Three of 4 tokens, three of 16, masks of their own: two attentions a site, beside six processors."""
    kinds = ["base", "plus"] * 3
    adapters = {kind: twins.adapter(kind) for kind in set(kinds)}
    pictures, batch = tiny.picture(seed=7, count=6), make_batch(twins.family)
    scales = [0.5, 0.8, -0.3, 0.4, 1.2, 0.1]
    down, right = torch.linspace(0, 1, 128)[:, None], torch.linspace(1, 0, 128)
    # linear, as in test_regions.py, and of six slopes
    masks = [((n * down + (5 - n) * right) / 5)[None, None] for n in range(6)]
    oracle = twins.oracle.load(*(adapters[kind].tensors for kind in kinds), scale=scales)
    patched = twins.model
    for n in order:
        prompt = twins.encode(adapters[kinds[n]], pictures[n][None])
        patched = twins.apply(prompt, scales[n], patched, mask=masks[n][0])

    embeds = [twins.embeds(kind, batch, picture[None]) for kind, picture in zip(kinds, pictures, strict=True)]
    theirs = oracle(batch, embeds, masks)

    assert max_error(run_host(patched, batch), theirs, f"six prompts {twins.family.name} {order}") <= LIMIT
    assert len(called) == 2 * twins.family.sites
