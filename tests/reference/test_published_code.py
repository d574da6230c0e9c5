"""The authors' own processors and projections, as published, in a diffusers UNet."""

import pytest
import torch
from helpers import published
from support import tiny
from support.parity import LIMIT, make_batch, max_error, run_host, with_tokens

TOKENS = {"base": 4, "plus": 16, "full": 17}  # 17: one for each token of the small encoder


@pytest.mark.parametrize("kind", TOKENS)
def test_an_image_prompt_predicts_the_same_noise_as_the_published_code(twins, kind):
    adapter, picture, batch = twins.adapter(kind), tiny.picture(seed=19), make_batch(twins.family)
    proj = adapter.tensors["image_proj"]
    network = published.projection(
        kind, twins.embeds(kind, batch, picture).shape[-1], twins.family.context, width=128, heads=2
    )
    network.load_state_dict(proj)
    unet = twins.oracle.load().unet
    oracle = twins.oracle.use(
        published.processors(unet, adapter.tensors["ip_adapter"], scale=0.8, tokens=TOKENS[kind])
    )
    with torch.no_grad():
        tokens = network(twins.embeds(kind, batch, picture)[:, 0])  # they travel behind the text tokens

    theirs = oracle(with_tokens(batch, tokens))
    ours = run_host(twins.apply(twins.encode(adapter, picture), 0.8), batch)

    assert max_error(ours, theirs, f"published code {kind} {twins.family.name}") <= LIMIT
