"""Encoder features through our host bridge, against transformers with the same weights."""

from types import SimpleNamespace

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from support import parity, tiny
from support.oracle import processed
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


@pytest.mark.parametrize("size", [48, 24])
@pytest.mark.parametrize("kind", ["base", "plus"])
def test_at_another_size_positions_are_interpolated_as_transformers_does(sd15, kind, size):
    pictures = tiny.picture(seed=21, height=size, width=size, count=2)
    ours = host.encode_images(sd15.encoder, sd15.adapter(kind).ours.spec, host.Reference(pictures), size=size)
    with torch.no_grad():
        out = sd15.reference_encoder.model(
            processed(pictures, size), output_hidden_states=True, interpolate_pos_encoding=True
        )
    theirs = out.image_embeds if kind == "base" else out.hidden_states[-2]
    assert max_error(ours, theirs, f"features at {size} pixels, {kind}") <= LIMIT


def test_the_encoder_itself_keeps_its_positions(sd15):
    before = {key: value.clone() for key, value in sd15.encoder.get_sd().items()}
    spec = sd15.adapter("plus").ours.spec
    host.encode_images(sd15.encoder, spec, host.Reference(tiny.picture(height=48, width=48)), size=48)
    assert all(torch.equal(value, before[key]) for key, value in sd15.encoder.get_sd().items())


def test_another_size_is_refused_where_there_is_no_class_token(sd15):
    class Siglip:
        patcher, load_device, image_size = sd15.encoder.patcher, torch.device("cpu"), 32
        model = SimpleNamespace(
            vision_model=SimpleNamespace(embeddings=SimpleNamespace(class_embedding=None))
        )

    with pytest.raises(MismatchError, match="encoder_size 48 needs a CLIP encoder"):
        host.encode_images(Siglip(), sd15.adapter("plus").ours.spec, host.Reference(tiny.picture()), size=48)
