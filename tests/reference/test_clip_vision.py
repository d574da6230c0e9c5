"""Encoder features through our host bridge, against transformers with the same weights."""

import pytest
from image_prompt.nodes import host
from support import parity, tiny
from support.parity import KINDS, LIMIT, max_error


@pytest.fixture(scope="module")
def sd15():
    return parity.twins("SD1.5")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 20], ids=["one picture", "more than one batch"])
def test_features_are_those_of_transformers(sd15, kind, count):
    pictures = tiny.picture(seed=20, count=count)
    spec = sd15.adapter(kind).ours.spec
    ours = host.encode_images(sd15.encoder, spec, host.Reference(pictures))
    theirs = sd15.reference_encoder.images(kind, pictures)
    assert max_error(ours, theirs, f"features {kind}, {count} pictures") <= LIMIT


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_what_the_adapter_was_trained_with(sd15, kind):
    ours = host.unconditional_features(sd15.encoder, sd15.adapter(kind).ours.spec)
    theirs = sd15.reference_encoder.nothing(kind)
    assert max_error(ours, theirs, f"features of no image, {kind}") <= (0 if kind == "base" else LIMIT)
