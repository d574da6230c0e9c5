"""What differs on transformers, in numbers: K' of length √d in each head, masks over text and reference rows, curves."""

import pytest
import torch
from core.small import naive_attention, randn
from image_prompt.ipadapter_core.attention import SiteResidual, normed_by_head
from image_prompt.ipadapter_core.families.site import Site
from image_prompt.ipadapter_core.masking import Region
from image_prompt.ipadapter_core.projections import pooled
from image_prompt.ipadapter_core.weighting import site_weights

HEADS = 2


def test_keys_are_normed_in_each_head():
    keys = randn(1, 5, 16) * 3
    normed = normed_by_head(keys, HEADS)
    for head in range(HEADS):
        part, of = normed[..., head * 8 : head * 8 + 8], keys[..., head * 8 : head * 8 + 8]
        assert torch.allclose(part, of / (of.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt(), atol=1e-6)
    assert torch.equal(normed_by_head(torch.zeros(1, 5, 16), HEADS), torch.zeros(1, 5, 16))


def test_text_rows_get_the_mean_of_the_mask_and_reference_rows_nothing():
    mask = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(1))
    weights = Region(mask).weights(2, 3, 4 + 6 + 5, 4)
    assert weights.shape == (1, 15, 1)
    assert torch.allclose(weights[:, :4], mask.mean().expand(1, 4, 1))
    assert torch.equal(weights[:, 4:10], Region(mask).weights(2, 3, 6))
    assert not weights[:, 10:].any()


def test_a_mask_and_its_rest_add_up_over_text_and_picture():
    mask = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(1))
    q, out = randn(2, 3 + 6, 16), randn(2, 3 + 6, 16, seed=1)
    pair = randn(2, 4, 16, seed=2), randn(2, 4, 16, seed=3)
    whole = SiteResidual(*pair, 1, 0.7).add_to(out, q, HEADS, (0, 1), None)
    parts = out
    for part in (mask, 1 - mask):
        parts = SiteResidual(*pair, 1, 0.7, part).add_to(parts, q, HEADS, (0, 1), (2, 3, 3))
    assert torch.allclose(parts, whole, atol=1e-6)
    expected = out + 0.7 * naive_attention(q, *pair, HEADS)
    assert torch.allclose(whole, expected, atol=1e-6)


def test_a_curve_is_over_the_blocks_that_have_a_pair():
    places = [("double", 0), ("double", 1), ("single", 0), ("single", 1)]
    sites = tuple(
        Site(f"{stage} {n}", stage, i, 0, 16, 0, HEADS, architecture="Flux")
        for i, (stage, n) in enumerate(places)
    )
    assert site_weights(sites, 1.0, "ease in", None, (0, 1, None, None)) == (1.0, 0.525, 0.0, 0.0)
    assert site_weights(sites, 1.0, "ease in") == tuple(0.05 + 0.95 * (1 - n / 4) for n in range(4))


@pytest.mark.parametrize("rows", [7, 32, 10_000])
def test_the_large_projection_is_the_same_in_parts(rows, monkeypatch):
    monkeypatch.setattr(pooled, "_ROWS", rows)
    projection = pooled.PooledProjection(12, 24, 4, 16)
    vector = randn(3, 12)
    with torch.no_grad():
        whole = projection.norm(projection.proj(vector).unflatten(-1, (4, 16)))
        assert torch.allclose(projection(vector), whole, atol=1e-6)
