"""Meaning on a transformer: with an adapter trained on it, the toy Flux takes the reference's content."""

from itertools import pairwise

import pytest
import torch
from helpers.beside import has_hooks
from image_prompt.lab.demo.figures import HELD_OUT, report_in_short
from image_prompt.lab.demo.gallery import WEIGHTS
from image_prompt.lab.demo.studio import Part, Scene
from image_prompt.lab.demo.transformers import TransformerStudio, contact_sheet
from image_prompt.lab.toy import flux_models, reader, world

PICTURES = 24
MODELS = {"stand-in": flux_models.stand_in, "host": flux_models.host_model}


@pytest.fixture(scope="module", params=["stand-in", pytest.param("host", marks=has_hooks)])
def studio(request):
    with flux_models.hooked():
        yield TransformerStudio(MODELS[request.param]())


@pytest.fixture(scope="module")
def scenes():
    return world.make_scenes(PICTURES, HELD_OUT)


@pytest.fixture(scope="module")
def references(scenes):
    return world.render(scenes).movedim(1, -1)


@pytest.fixture(scope="module")
def sweep(studio, references):
    """Pictures by weight: empty text, the same noise, one reference for each picture of the batch."""
    return {w: studio.make(Scene((Part(references, w),), pictures=PICTURES)) for w in WEIGHTS}


def test_the_likeness_grows_with_the_weight(studio, references, sweep):
    likeness = [studio.similarity(sweep[w], references).mean().item() for w in WEIGHTS]
    print("toy CLIP-I by weight:", {w: round(v, 3) for w, v in zip(WEIGHTS, likeness, strict=True)})
    assert likeness[0] < 0.45
    assert likeness[-1] > 0.8
    assert all(less < more for less, more in pairwise(likeness))


def test_weight_zero_is_the_base_models_picture_bit_for_bit(studio, sweep):
    assert torch.equal(sweep[0.0], studio.make(Scene(pictures=PICTURES)))


def test_shape_and_pattern_are_the_references(scenes, sweep):
    """The figure over 64 references: `python -m lab.demo --transformer --count 64`."""
    judge = reader.load_reader()
    shapes, patterns = reader.read(judge, sweep[1.0])
    print("kept:", int((shapes == scenes.shape).sum()), int((patterns == scenes.pattern).sum()))
    # over 64 references 39 and 62: shapes are the weak part of so small a model
    assert (shapes == scenes.shape).sum() >= PICTURES / 2
    assert (patterns == scenes.pattern).sum() >= 0.9 * PICTURES
    # weight 0 knows nothing of it
    assert (reader.read(judge, sweep[0.0])[0] == scenes.shape).sum() < PICTURES / 2


def test_another_reference_is_not_what_comes_out(studio, references, sweep):
    own = studio.similarity(sweep[1.0], references)
    assert (own > studio.similarity(sweep[1.0], references.roll(1, 0))).all()


def test_the_base_follows_words(studio, scenes):
    made = torch.cat(
        [studio.make(Scene(text=text, seed=n)) for n, text in enumerate(world.captions(scenes[:4]))]
    )
    shapes, patterns = reader.read(reader.load_reader(), made)
    assert (shapes == scenes.shape[:4]).sum() >= 3
    assert (patterns == scenes.pattern[:4]).sum() >= 3


def test_the_command_counts_and_draws(studio):
    lines = report_in_short(studio, 2).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "2 references",
        "likeness by weight",
        "weight 0, no text",
        "weight 1, no text",
    ]
    assert contact_sheet(studio).width == 942


@has_hooks
def test_the_stand_in_is_the_hosts_own_network(references):
    """With the same weights: one call to 1e-5, and the steered picture."""
    ours, theirs = flux_models.stand_in(), flux_models.host_model()
    x, sigma = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(3)), torch.tensor([0.9, 0.3])
    [[words, more]] = flux_models.encode_text("red star on striped pale blue")
    given = {"context": words.expand(2, -1, -1), "y": more["pooled_output"].expand(2, -1)}
    with torch.inference_mode():
        a, b = (
            model.model.diffusion_model(x, sigma, guidance=None, transformer_options={}, **given)
            for model in (ours, theirs)
        )
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    scene = Scene((Part(references[:2], 0.8),), "star", pictures=2)
    ours, theirs = (TransformerStudio(model).make(scene) for model in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
