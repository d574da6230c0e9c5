"""Errors that arise in the sampler say which node of ours they are about: the host marks the sampler."""

import importlib
from contextlib import nullcontext

import pytest
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from image_prompt.nodes.apply import ImagePromptApplyNode
from support import tiny
from support.sampling import sample


def run_as(number: str):
    """As the host runs a node of this id; hosts before 2025 do not say which node that is."""
    try:
        context = importlib.import_module("comfy_execution.utils").CurrentNodeContext
    except (ImportError, AttributeError):
        return nullcontext(), ""
    return context("prompt", number), f" #{number}"


def applied(model, prompt, number, weight=1.0):
    """The steered model, and how the node is called in a message."""
    running, label = run_as(number)
    with running:
        (steered,) = ImagePromptApplyNode().apply(model, prompt, weight)
    return steered, f"{ImagePromptApplyNode.TITLE}{label}"


@pytest.fixture
def two_images(sd15_prompt, encoder):
    """One for each picture of a batch of two."""
    reference = host.Reference(tiny.picture(4, count=2))
    return host.encode_prompt(
        sd15_prompt.adapter, encoder, reference, encoding=host.Encoding(Arrange.ONE_EACH)
    )


@pytest.mark.parametrize("first", [True, False])
def test_the_prompt_that_does_not_fit_is_named_and_not_its_neighbour(sd15, sd15_prompt, two_images, first):
    chain = [("3", two_images), ("7:4", sd15_prompt)]
    model, names = sd15, {}
    for number, prompt in chain if first else chain[::-1]:
        model, names[number] = applied(model, prompt, number)
    with pytest.raises(MismatchError) as raised:
        sample(model, tiny.SD15, pictures=3)
    words = str(raised.value)
    assert words.startswith(f"{names['3']}: the image prompt has 2 images")
    assert words.count("Image Prompt: Apply") == 1


def test_what_is_about_all_prompts_names_the_last(sd15, sd15_prompt, monkeypatch):
    if not hasattr(sd15, "add_wrapper_with_key"):
        pytest.skip("hosts before December 2024 look up no sites while they sample")
    model, _ = applied(sd15, sd15_prompt, "3")
    model, name = applied(model, sd15_prompt, "4")
    monkeypatch.setattr("image_prompt.host.attach.carrier.model_sites", lambda network: ())
    with pytest.raises(MismatchError) as raised:
        sample(model, tiny.SD15)
    assert str(raised.value).startswith(f"{name}: the image prompt was applied to a model")


def test_without_a_node_no_node_is_named(sd15, two_images):
    with pytest.raises(MismatchError, match=r"^the image prompt has 2 images"):
        sample(host.apply_prompt(sd15, two_images, 1.0), tiny.SD15, pictures=3)
