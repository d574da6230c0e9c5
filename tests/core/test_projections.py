"""Image projections: what comes out for what goes in, with sizes read from the tensors."""

import pytest
import torch
from core.small import CONTEXT, FEATURE, adapter, randn
from image_prompt.ipadapter_core.projections.base import Projection
from image_prompt.ipadapter_core.projections.linear import FullProjection, ImageProjection
from image_prompt.ipadapter_core.projections.resampler import Resampler
from torch import nn

NETWORKS: dict[str, tuple[type[Projection], tuple[int, ...], tuple[int, ...]]] = {
    "base": (ImageProjection, (FEATURE,), (4, CONTEXT)),
    "plus": (Resampler, (9, FEATURE), (3, CONTEXT)),
    "plus, 577 encoder tokens": (Resampler, (577, FEATURE), (3, CONTEXT)),
    "full": (FullProjection, (9, FEATURE), (9, CONTEXT)),
    "full, 257 encoder tokens": (FullProjection, (257, FEATURE), (257, CONTEXT)),
}


def network(name: str) -> nn.Module:
    return adapter(name.split(",")[0]).image_proj


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("images", [1, 3])
def test_tokens_have_the_declared_shape(name: str, images: int):
    kind, feature, tokens = NETWORKS[name]
    made = network(name)
    assert type(made) is kind
    assert made(randn(images, *feature)).shape == (images, *tokens)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_image_is_projected_by_itself(name: str):
    made, features = network(name), randn(4, *NETWORKS[name][1])
    alone = torch.cat([made(one[None]) for one in features])
    torch.testing.assert_close(made(features), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["base", "plus", "full"])
def test_tokens_are_normalised_before_the_learnt_scale(name: str):
    made = network(name)
    norm = [module for module in made.modules() if isinstance(module, nn.LayerNorm)]
    last = next(module for module in norm if module.normalized_shape == (CONTEXT,))
    nn.init.ones_(last.weight)
    nn.init.zeros_(last.bias)
    tokens = made(randn(2, *NETWORKS[name][1]))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:-1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(tokens.shape[:-1]), atol=1e-3, rtol=0)


def test_no_image_is_the_bias_as_tokens_not_zero():
    """Paper section 3.2: training zeroes the embedding before the projection, so 'no image' is LN(bias)."""
    made = network("base")
    assert isinstance(made, ImageProjection)
    bias = made.proj.bias.view(1, 4, CONTEXT)
    assert torch.equal(made(torch.zeros(1, FEATURE)), made.norm(bias))


def test_base_splits_one_vector_into_consecutive_tokens():
    made, features = network("base"), randn(1, FEATURE)
    assert isinstance(made, ImageProjection)
    third = (
        made.proj.weight[2 * CONTEXT : 3 * CONTEXT] @ features[0] + made.proj.bias[2 * CONTEXT : 3 * CONTEXT]
    )
    torch.testing.assert_close(made(features)[0, 2], made.norm(third), atol=1e-6, rtol=0)


def test_full_projects_each_encoder_token_by_itself():
    made, features = network("full"), randn(1, 9, FEATURE)
    order = torch.tensor([3, 1, 4, 0, 5, 8, 2, 6, 7])
    torch.testing.assert_close(made(features[:, order]), made(features)[:, order], atol=1e-6, rtol=0)


def test_the_resampler_reads_encoder_tokens_as_a_set():
    """It has no position embedding; where a patch lies is in the encoder's own features."""
    made, features = network("plus"), randn(1, 9, FEATURE)
    torch.testing.assert_close(made(features.flip(1)), made(features), atol=2e-6, rtol=0)


def test_perceiver_attention_is_that_of_the_reference():
    """resampler.py: q from latents, k and v from (features, latents) in one matrix, k first; scale d^-1/4 on each."""
    made = network("plus")
    assert isinstance(made, Resampler)
    attention = made.layers[0][0]
    x, latents = randn(2, 5, 16, seed=1), randn(2, 3, 16, seed=2)
    a, b = attention.norm1(x), attention.norm2(latents)
    kv = torch.cat((a, b), dim=1) @ attention.to_kv.weight.T
    k, v = kv[..., :128].unflatten(-1, (2, 64)), kv[..., 128:].unflatten(-1, (2, 64))
    q = (b @ attention.to_q.weight.T).unflatten(-1, (2, 64))
    scale = 64**-0.25
    weights = torch.einsum("nqhd,nkhd->nhqk", q * scale, k * scale).softmax(-1)
    out = torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(-2) @ attention.to_out.weight.T
    torch.testing.assert_close(attention(x, latents), out, atol=1e-6, rtol=0)


def test_each_resampler_layer_adds_to_the_latents():
    made, features = network("plus"), randn(2, 9, FEATURE)
    assert isinstance(made, Resampler)
    x = features @ made.proj_in.weight.T + made.proj_in.bias
    latents = made.latents.repeat(2, 1, 1)
    for attention, ff in made.layers:
        latents = latents + attention(x, latents)
        inner = ff[0](latents) @ ff[1].weight.T
        latents = latents + nn.functional.gelu(inner) @ ff[3].weight.T
    tokens = made.norm_out(latents @ made.proj_out.weight.T + made.proj_out.bias)
    torch.testing.assert_close(made(features), tokens, atol=5e-6, rtol=0)
