"""Image Prompt: Layer Weights on Flux: blocks by name through the node, and the sentences for names that are not there."""

import logging

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny_flux, transformer
from support.prompts import counted_residuals
from support.tiny_flux import RELEASED


@pytest.fixture
def model(monkeypatch):
    transformer.install_hooks(monkeypatch)
    return transformer.stand_in(*RELEASED)


@pytest.fixture(scope="module")
def prompt():
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(sum(RELEASED))))
    tokens = adapter.project(Features(torch.randn(1, 48, generator=torch.Generator().manual_seed(1))))
    return make_prompt(adapter, tokens, torch.zeros_like(tokens))


def weigh(model, **inputs):
    return NODE_CLASS_MAPPINGS["ImagePromptLayerWeights"]().weigh(model, **inputs)["result"]


def apply(model, prompt, **inputs):
    return NODE_CLASS_MAPPINGS["ImagePromptApply"]().apply(model, prompt, 0.5, **inputs)[0]


def test_blocks_by_name_reach_their_blocks_and_no_others(model, prompt, monkeypatch):
    weights, summary = weigh(model, blocks="all: 0, double 3: 1, single 30-31: 0.5")
    assert summary == (
        "Flux.1: double 0-2 0, double 3 1, double 4-18 0, single 0-29 0, single 30-31 0.5, single 32-37 0"
    )
    patched = apply(model, prompt, layer_weights=weights)
    found = {label: each[0].site.weight for (label, _), each in host.residuals_of(patched).items()}
    assert found == {"double 3": 0.5, "single 30": 0.25, "single 31": 0.25}
    with counted_residuals(monkeypatch) as calls:
        transformer.sample(patched, steps=2)
    assert sorted(calls.values()) == [2, 2, 2]


def test_without_a_text_every_block_has_1(model, prompt):
    weights, summary = weigh(model)
    assert summary == "Flux.1: double 0-18 1, single 0-37 1"
    plain, weighed = (
        transformer.sample(apply(model, prompt, **more)) for more in ({}, {"layer_weights": weights})
    )
    assert torch.equal(plain, weighed)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"blocks": "double 19: 1"},
            "Flux.1 has no attention block 'double 19'; it has double 0-18, single 0-37",
        ),
        ({"blocks": "input 4: 0.5"}, "Flux.1 has no attention block 'input 4'"),
        ({"input_4": 0.5}, "Flux.1 has no attention block input 4; it has double 0-18, single 0-37"),
        ({"blocks": "double 3 = much"}, "the weight of 'double 3' is 'much'"),
    ],
)
def test_names_that_the_model_does_not_have_get_a_sentence(model, inputs, words):
    with pytest.raises(SettingError) as caught:
        weigh(model, **inputs)
    assert words in str(caught.value)


def test_weights_of_another_model_are_refused(model, prompt, sd15):
    weights, _ = weigh(sd15, blocks="input 4: 0.5")
    with pytest.raises(
        MismatchError, match=r"Flux\.1 has no attention block 'input 1'; it has: double 0-18, single"
    ):
        apply(model, prompt, layer_weights=weights)


def test_a_unet_takes_names_too(sd15):
    written, _ = weigh(sd15, blocks="input 4-8: 0.5, middle: 2")
    widgets, _ = weigh(sd15, input_4=0.5, input_5=0.5, input_7=0.5, input_8=0.5, middle=2.0)
    assert written == widgets


def test_style_on_flux_says_where_its_blocks_are_from(model, prompt, caplog):
    caplog.set_level(logging.INFO)
    found = host.residuals_of(apply(model, prompt, weight_type="style transfer"))
    assert {label for label, _ in found} == {f"single {n}" for n in range(10, 38)}
    assert "'style transfer' is an experiment on Flux.1" in caplog.text
    assert "arXiv 2511.15258" in caplog.text
