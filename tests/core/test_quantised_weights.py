"""A new adapter starts from the model's own K and V, whatever a host keeps them in."""

import pytest
import torch
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.families.weights import weight_of
from torch import nn


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(16, 8, bias=False)


def as_fp8(layer, scale):
    """As ComfyUI 0.3.64 keeps a scaled fp8 file."""
    kept = nn.Linear(16, 8, bias=False)
    values = (layer.weight.detach() / scale).to(torch.float8_e4m3fn)
    kept.weight = nn.Parameter(values, requires_grad=False)
    kept.scale_weight = nn.Parameter(torch.tensor(scale), requires_grad=False)
    return kept


def test_a_plain_weight_is_copied_in_fp32(layer):
    layer = layer.half()
    weight = weight_of(layer)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, layer.weight.float())
    weight.zero_()
    assert layer.weight.abs().max() > 0


def test_an_fp8_weight_has_its_scale(layer):
    weight = weight_of(as_fp8(layer, 0.001))
    assert torch.allclose(weight, layer.weight, rtol=0.07, atol=1e-4)


def test_a_scale_of_none_is_none(layer):
    layer.scale_weight = None
    assert torch.equal(weight_of(layer), layer.weight)


def test_a_weight_in_unknown_bytes_is_a_sentence(layer):
    layer.weight = nn.Parameter(torch.zeros(8, 9, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(MismatchError, match="quantised in a way that is not read here"):
        weight_of(layer)
