"""Projection networks alone, at their released sizes, against diffusers' re-write and the published code."""

import pytest
import torch
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from helpers import published
from image_prompt.ipadapter_core.projections.linear import FullProjection, ImageProjection
from image_prompt.ipadapter_core.projections.resampler import Resampler
from support.oracle import lively_
from support.parity import LIMIT, max_error

# name -> our class, arguments of the published one, shape of the features of two pictures
NETWORKS = {
    "base SD1.5": (ImageProjection, ("base", 1024, 768), (2, 1024)),
    "base SDXL bigG": (ImageProjection, ("base", 1280, 2048), (2, 1280)),
    "full SD1.5": (FullProjection, ("full", 1280, 768), (2, 257, 1280)),
    "plus SD1.5": (Resampler, ("plus", 1280, 768, 768, 12), (2, 257, 1280)),
    "plus SDXL": (Resampler, ("plus", 1280, 2048, 1280, 20), (2, 257, 1280)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """(name, features, what the published network makes of them, its weights, ours with the same weights)."""
    kind, sizes, shape = NETWORKS[request.param]
    theirs = published.projection(*sizes, device="meta").to_empty(device="cpu").requires_grad_(False)
    lively_(theirs.state_dict(), seed=61)
    weights = theirs.state_dict()
    ours = kind.from_shapes({key: tuple(value.shape) for key, value in weights.items()}, device="meta")
    ours.load_state_dict(weights, assign=True)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(62))
    with torch.no_grad():
        return request.param, features, theirs(features), weights, ours(features)


def test_tokens_are_those_of_the_published_network(network):
    name, _, published_tokens, _, our_tokens = network
    assert max_error(our_tokens, published_tokens, f"published {name}") <= LIMIT


def test_tokens_are_those_of_diffusers(network):
    name, features, _, weights, our_tokens = network
    convert = UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers
    theirs = convert(None, weights, low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        assert max_error(our_tokens, theirs(features), f"diffusers {name}") <= LIMIT
