"""The patched UNet, in the real host: what is called, what stays bit-identical, what composes."""

import pytest
import torch
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.nodes import host
from support import tiny


@pytest.fixture(scope="module", params=["SD1.5", "SDXL"])
def family(request):
    return tiny.FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    return tiny.host_model(family)


@pytest.fixture(scope="module")
def adapter(family):
    return make_adapter("base", family)


def make_adapter(kind, family, seed=7):
    tensors = tiny.adapter_tensors(kind, family, seed)
    return host.HostAdapter(Checkpoint(f"{kind}.safetensors", tensors["image_proj"], tensors["ip_adapter"]))


@pytest.fixture(scope="module")
def prompt(adapter):
    return host.encode_prompt(adapter, tiny.clip_vision(), host.Reference(tiny.picture()))


def test_weight_zero_is_bit_identical_to_the_base_model(model, family, prompt):
    assert torch.equal(
        tiny.run_unet(host.apply_prompt(model, prompt, 0.0), family), tiny.run_unet(model, family)
    )


def test_an_image_changes_the_output(model, family, prompt):
    difference = tiny.run_unet(host.apply_prompt(model, prompt, 1.0), family) - tiny.run_unet(model, family)
    assert difference.abs().max() > 0.1
