"""Copies of the de-facto ids, and ArtVenture's nodes in both orders of their widgets: each equals the node it stands on."""

import pytest
import torch
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes.compat import node_classes, old_prompts
from support import tiny
from support.sampling import sample

PLUS, ENCODER = "ip-adapter-plus_sd15.safetensors", "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"


@pytest.fixture(scope="module")
def model():
    return tiny.host_model(tiny.SD15)


def run(node_id, *args, **named):
    node = node_classes()[node_id]
    return getattr(node(), node.FUNCTION)(*args, **named)


def picture(seed=1):
    return tiny.picture(seed, 40, 40)


def same(a, b):
    return torch.equal(*(sample(model, tiny.SD15, steps=2) for model in (a, b)))


@pytest.fixture
def loaded(models):
    return run("AV_IPAdapterPipe", PLUS, ENCODER)[0]


# --- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", ["IPAdapterAdvancedV2", "MZ_IPAdapterAdvancedKolors"])
def test_a_copy_gives_what_the_node_gives(model, loaded, copy):
    given = {"model": model, "ipadapter": loaded, "image": picture(), "weight": 0.7, "weight_type": "ease in"}
    assert same(run(copy, **given)[0], run("IPAdapterAdvanced", **given)[0])


def test_the_slider_writes_what_the_mad_scientist_reads(model, loaded):
    layers = dict.fromkeys([f"layer{n}" for n in range(12)], 0.0) | {"layer3": 0.5, "layer6": 1.0}
    (text,) = run("IPAdapterLayerWeightsSlider", **layers, multiplier=2.0)
    given = {"model": model, "ipadapter": loaded, "image": picture(), "weight_type": "linear"}
    written = run("IPAdapterMSV2", **given, layer_weights=text)[0]
    assert same(written, run("IPAdapterMS", **given, layer_weights="3:1.0, 6:2.0")[0])


def test_the_face_loader_of_kolors_takes_its_one_model(models, monkeypatch):
    from image_prompt.nodes.compat import loaders

    monkeypatch.setattr(loaders, "load_faces", lambda *asked: asked)
    assert run("MZ_IPAdapterInsightFaceLoader", "CPU") == (("CPU", "antelopev2"),)
    node = node_classes()["MZ_IPAdapterInsightFaceLoader"]
    assert node.IS_CHANGED(provider="CPU") == "missing"


# --- ArtVenture --------------------------------------------------------------------------------------------------


def test_art_venture_applies_as_the_simple_node(model, loaded):
    steered, pipe, encoder = run("AV_IPAdapter", PLUS, ENCODER, model, picture(), 0.7, weight_type="standard")
    assert same(steered, run("IPAdapter", model, loaded, picture(), 0.7, 0.0, 1.0)[0])
    assert encoder is pipe["clipvision"]["model"]
    again, _, _ = run(
        "AV_IPAdapter", "None", "None", model, picture(), 0.7, ip_adapter_opt=pipe, clip_vision_opt=encoder
    )
    assert same(again, steered)


def test_switched_off_it_passes_the_model_on(model, models):
    assert run("AV_IPAdapter", "None", "None", model, picture(), 0.7, enabled=False) == (model, None, None)
    assert run(
        "AV_IPAdapterApplyEncoded", "None", torch.zeros(1, 4), model, 1.0, "linear", enabled=False
    ) == (
        model,
        None,
    )


def test_none_of_anything_is_a_sentence(model, models):
    with pytest.raises(MismatchError, match="ip_adapter_opt is not connected"):
        run("AV_IPAdapter", "None", "None", model, picture(), 0.7)
    with pytest.raises(MismatchError, match="no CLIP vision model came"):
        run("AV_IPAdapter", PLUS, "None", model, picture(), 0.7)


def test_the_form_of_2023_had_noise(model, loaded):
    inputs = {
        "ip_adapter_name": PLUS,
        "clip_name": ENCODER,
        "model": ["1", 0],
        "image": ["2", 0],
        "weight": 0.7,
        "noise": 0.3,
    }
    prompt = {"7": {"class_type": "AV_IPAdapter", "inputs": dict(inputs)}}
    classes = node_classes()
    old_prompts.renew(prompt, classes, lambda node: node in classes.values())
    assert prompt["7"]["class_type"] == "ImagePromptLegacyArtVenture"
    given = {"weight": 0.7, "noise": 0.3}
    steered, _, encoder = run("ImagePromptLegacyArtVenture", PLUS, ENCODER, model, picture(), **given)
    first = run("IPAdapterApply", loaded, model, clip_vision=encoder, image=picture(), **given)[0]
    assert same(steered, first)
    assert not same(steered, run("AV_IPAdapter", PLUS, ENCODER, model, picture(), 0.7)[0])


def test_encoded_pictures(model, loaded):
    encoder = loaded["clipvision"]["model"]
    (embeds,) = run("ImagePromptLegacyEncoder", encoder, picture(), True, 0.0, 1.0)
    steered, _ = run("AV_IPAdapterApplyEncoded", PLUS, embeds, model, 0.7, "channel penalty")
    first = run("IPAdapterApplyEncoded", loaded, model, 0.7, embeds=embeds, weight_type="channel penalty")[0]
    assert same(steered, first)
