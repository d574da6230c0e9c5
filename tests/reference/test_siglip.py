"""SigLIP's pooled vector beside transformers, and an InstantX adapter that reads it through our nodes."""

import json

import comfy.clip_vision
import comfy.ldm.modules.attention as host_attention
import folder_paths
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import WrongEncoderError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.siglip import KEYS, pooled
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from safetensors.torch import save_file
from support import tiny, tiny_flux
from support.prompts import make_adapter
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

SIZES = {
    "hidden_size": 64,
    "image_size": 56,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "patch_size": 14,
}
host_knows_siglip = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no SigLIP: run with COMFYUI_PATH",
)


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(3)
    model = SiglipVisionModel(SiglipVisionConfig(**SIZES)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    return model


def weights_of(model):
    return {
        key if key.startswith("vision_model.") else f"vision_model.{key}": tensor.clone()
        for key, tensor in model.state_dict().items()
    }


def test_the_head_is_that_of_transformers(reference):
    head = {key: weights_of(reference)[f"vision_model.head.{key}"] for key in KEYS}
    out = reference(pixel_values=torch.randn(3, 3, 56, 56))
    ours = pooled(out.last_hidden_state, head, heads=4)
    assert (ours - out.pooler_output).abs().max() <= 2e-5


@pytest.fixture
def encoder(reference, tmp_path, monkeypatch):
    """As CLIPVisionLoader gives it, its file in the folder of encoders."""
    extra = {"num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "model_type": "siglip_vision_model"}
    extra |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(SIZES | extra))
    made = comfy.clip_vision.ClipVisionModel(str(tmp_path / "config.json"))
    weights = weights_of(reference)
    made.load_sd(dict(weights))
    save_file({"other": torch.zeros(2)}, str(tmp_path / "a.safetensors"))
    save_file(weights, str(tmp_path / "encoder.safetensors"))
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "clip_vision", ([str(tmp_path)], {".safetensors"})
    )
    return made


def encode(adapter, encoder, **more):
    node = NODE_CLASS_MAPPINGS["ImagePromptEncode"]()
    given = {"ipadapter": adapter, "clip_vision": encoder, "image": tiny.picture(1, 56, 56)}
    return node.encode(**{**given, **more})[0]


@pytest.fixture
def seen(encoder, monkeypatch):
    """The pixel values that the encoder was run on."""
    values, forward = [], encoder.model.forward

    def looking(*args, pixel_values, **options):
        values.append(pixel_values.clone())
        return forward(*args, pixel_values=pixel_values, **options)

    monkeypatch.setattr(encoder.model, "forward", looking)
    return values


ONE_LEVEL = 2 / 255 + 1e-6  # of 8 bits, after division by a std of 0.5
WIDE = {"wide": (90, 210), "tall": (300, 120), "larger square": (448, 448), "square": (56, 56)}


@host_knows_siglip
@pytest.mark.parametrize("size", WIDE)
def test_by_default_the_whole_picture_is_squashed_as_by_its_authors(encoder, seen, size):
    image = tiny.picture(2, *WIDE[size])
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(feature=64)))
    prompt = encode(adapter, encoder, image=image)
    processor = SiglipImageProcessor(size={"height": 56, "width": 56})
    theirs = processor([(image[0] * 255).round().byte().numpy()], return_tensors="pt")["pixel_values"]
    assert (seen[0] - theirs).abs().max() <= ONE_LEVEL
    assert (seen[0] - theirs).abs().mean() <= 0.2 * ONE_LEVEL  # theirs rounds after each of two passes
    assert prompt.note["fit"] == "squash"
    assert torch.equal(encode(adapter, encoder, image=image, fit="squash").cond, prompt.cond)
    if "square" not in size:
        for fit in ("crop", "pad"):
            assert not torch.equal(encode(adapter, encoder, image=image, fit=fit).cond, prompt.cond)


@host_knows_siglip
def test_the_fit_is_the_encoders_for_older_nodes_and_masks_too(encoder, seen):
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(feature=64)))
    image, mask = tiny.picture(2, 90, 210), torch.zeros(1, 90, 210)
    mask[..., :105] = 1
    masked = encode(adapter, encoder, image=image, reference_mask=mask)
    older = host.encode_as_host(encoder, adapter.spec, image, mask)
    assert torch.equal(*seen)
    assert not seen[0][..., 29:].any()
    assert seen[0][..., :27].any()
    assert torch.equal(adapter.project(Features(older)), masked.cond)


def test_clip_is_cropped_by_default():
    adapter = make_adapter("base", tiny.SD15)
    image = tiny.picture(2, 90, 210)
    prompts = [encode(adapter, tiny.clip_vision(), image=image, **more) for more in ({}, {"fit": "crop"})]
    assert torch.equal(prompts[0].cond, prompts[1].cond)
    assert prompts[0].note["fit"] == "crop"


@host_knows_siglip
def test_instantx_reads_the_pooled_vector(encoder, reference):
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(feature=64)))
    prompt = encode(adapter, encoder)
    values = (tiny.picture(1, 56, 56).movedim(-1, 1) - 0.5) / 0.5
    vector = reference(pixel_values=values).pooler_output
    projection = adapter.patcher.model.image_proj
    assert (projection(vector) - prompt.cond).abs().max() <= 2e-4
    assert prompt.adds_nothing_to_uncond
    zero = encode(adapter, encoder, no_image="zero features").uncond
    assert (projection(torch.zeros(1, 64)) - zero).abs().max() <= 2e-5


@host_knows_siglip
def test_an_encoder_whose_file_is_not_there_gets_a_sentence(encoder, tmp_path):
    (tmp_path / "encoder.safetensors").unlink()
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(feature=64)))
    with pytest.raises(WrongEncoderError, match=r"vision_model\.head"):
        encode(adapter, encoder)


def test_another_encoder_gets_a_sentence():
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(feature=64)))
    with pytest.raises(WrongEncoderError, match="is no SigLIP"):
        encode(adapter, tiny.clip_vision())
