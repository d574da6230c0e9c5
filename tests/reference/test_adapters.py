"""Base, plus and full adapters: picture in, noise prediction out, against transformers + diffusers."""

import pytest
from support import tiny
from support.parity import KINDS, LIMIT, make_batch, max_error, run_host

LAYOUTS = {
    "square": {"size": (16, 16), "chunks": (1, 0)},
    "24x40 cond first": {"size": (24, 40), "chunks": (0, 1)},
    "cond alone": {"size": (16, 16), "chunks": (0,)},
    "uncond alone": {"size": (16, 16), "chunks": (1,)},
    "two pictures, three chunks": {"size": (16, 16), "chunks": (0, 1, 0), "pictures": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_prompt_predicts_the_same_noise_as_diffusers(twins, kind, layout, called):
    adapter, picture = twins.adapter(kind), tiny.picture(seed=1)
    batch = make_batch(twins.family, **LAYOUTS[layout])
    oracle = twins.oracle.load(adapter.tensors, scale=0.8)
    patched = twins.apply(twins.encode(adapter, picture), 0.8)

    ours, theirs = run_host(patched, batch), oracle(batch, [twins.embeds(kind, batch, picture)])

    assert max_error(ours, theirs, f"{kind} {twins.family.name} {layout}") <= LIMIT
    assert len(called) == len(set(called)) == twins.family.sites == len(oracle.image_attentions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_far_below_the_effect_of_the_adapter(twins, kind):
    batch = make_batch(twins.family)
    patched = twins.apply(twins.encode(twins.adapter(kind), tiny.picture(seed=1)))
    effect = max_error(run_host(patched, batch), run_host(twins.model, batch), f"effect of {kind}")
    assert effect > 1000 * LIMIT


def test_leaving_out_the_middle_block_would_be_seen(twins):
    """The de-facto pack never reaches the middle block; these tests must be able to tell."""
    adapter, picture, batch = twins.adapter("base"), tiny.picture(seed=1), make_batch(twins.family)
    oracle = twins.oracle.load(adapter.tensors, scale={"down": 1.0, "up": 1.0, "mid": 0.0})
    ours = run_host(twins.apply(twins.encode(adapter, picture)), batch)
    theirs = oracle(batch, [twins.embeds("base", batch, picture)])
    assert max_error(ours, theirs, f"middle block left out, {twins.family.name}") > 100 * LIMIT
