"""Kolors: a UNet of SDXL's sites that projects the wide tokens of its text encoder, and of FaceID, itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders import unet as loaders
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection
from helpers import published
from helpers.faces import given_faces
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.projections.resampler import Resampler
from support import layouts, parity, tiny
from support.oracle import COND, lively_
from support.parity import LIMIT, call, make_batch, max_error, run_host, with_tokens

TEXT_WIDTH, TOKENS, STRUCTURE = 4096, 6, 0.7


@pytest.fixture(scope="module")
def hid_proj():
    linear = torch.nn.Linear(TEXT_WIDTH, 2048).requires_grad_(False)
    lively_(linear.state_dict(), seed=81)
    return linear


@pytest.fixture(scope="module")
def model(hid_proj):
    """The small SDXL UNet with its context projected first, as packs for Kolors build it."""
    model = tiny.host_model(tiny.SDXL, parity.twins("SDXL").oracle.host_state_dict())
    unet = model.model.diffusion_model

    class KolorsUNet(type(unet)):
        def forward(self, x, timesteps=None, context=None, **options):
            return super().forward(x, timesteps, context=self.encoder_hid_proj(context), **options)

    unet.encoder_hid_proj = hid_proj
    unet.__class__ = KolorsUNet
    return model


@pytest.fixture
def adapter():
    """Its small encoder looks at 32 pixels, where the real one looks at 336."""
    pair = parity.adapter_pair("faceid kolors", "SDXL")
    module = pair.ours.patcher.model
    module.spec = replace(module.spec, encoder_size=32)
    return pair


@pytest.fixture
def their_tokens(monkeypatch, adapter):
    """Face, no face -> tokens, by diffusers' network; it assumes four tokens and wide layers."""

    def network(**sizes):
        return IPAdapterFaceIDPlusImageProjection(ffn_ratio=128 / TEXT_WIDTH, num_tokens=TOKENS, **sizes)

    monkeypatch.setattr(loaders, "IPAdapterFaceIDPlusImageProjection", network)
    convert = loaders.UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers
    made = convert(None, adapter.tensors["image_proj"], low_cpu_mem_usage=False).eval()
    made.shortcut, made.shortcut_scale = True, STRUCTURE

    @torch.no_grad()
    def tokens(identity, seen):
        made.clip_embeds = seen[None]
        return made(identity)

    return tokens


def test_a_face_predicts_the_same_noise_as_the_published_processors(model, adapter, their_tokens, hid_proj):
    twins, faces = parity.twins("SDXL"), given_faces()
    batch = make_batch(SimpleNamespace(context=TEXT_WIDTH, adm=tiny.SDXL.adm))
    encoder = twins.reference_encoder
    identity = faces.embeddings(normalise=True)
    face = their_tokens(identity, encoder.images("plus", faces.aligned))
    no_face = their_tokens(torch.zeros_like(identity), encoder.nothing("plus"))
    tokens = torch.cat([face if chunk == COND else no_face for chunk in batch.chunks])
    unet = twins.oracle.load().unet
    oracle = twins.oracle.use(published.processors(unet, adapter.tensors["ip_adapter"], 0.8, TOKENS))
    unet.encoder_hid_proj, unet.config.encoder_hid_dim_type = hid_proj, "text_proj"

    prompt = call(
        "ImagePromptEncodeFace", adapter.ours, faces, structure_weight=STRUCTURE, clip_vision=twins.encoder
    )
    ours = run_host(call("ImagePromptApply", model, prompt, 0.8), batch)
    theirs = oracle(with_tokens(batch, tokens))
    twins.oracle.load()

    assert max_error(ours, theirs, "Kolors FaceID") <= LIMIT


def test_without_the_models_projection_the_adapter_is_refused(adapter):
    with pytest.raises(MismatchError, match="go through the model's encoder_hid_proj to 2048"):
        host.check_model(parity.twins("SDXL").model, adapter.ours)


def test_a_change_of_weight_projects_nothing_again(model, adapter, monkeypatch):
    prompt = call("ImagePromptEncodeFace", adapter.ours, given_faces(), clip_vision=parity.lively_encoder())
    call("ImagePromptApply", model, prompt, 0.8)
    monkeypatch.setattr(host.HostAdapter, "keys_values", lambda *_: pytest.fail("computed again"))
    call("ImagePromptApply", model, prompt, 0.5)


def test_an_encoder_of_another_size_is_refused(adapter):
    module = adapter.ours.patcher.model
    module.spec = replace(module.spec, encoder_size=336)
    with pytest.raises(
        MismatchError, match=r"which takes pictures of 336 pixels, but the connected .* takes 32"
    ):
        call("ImagePromptEncodeFace", adapter.ours, given_faces(), clip_vision=parity.lively_encoder())


def test_the_plus_resampler_of_kolors_has_attention_narrower_than_itself():
    """12 heads of 64 in a width of 2048; depth 1 here, 4 in the file."""
    theirs = published.Resampler(
        dim=2048, depth=1, dim_head=64, heads=12, num_queries=16, embedding_dim=1024, output_dim=2048
    ).requires_grad_(False)
    lively_(theirs.state_dict(), seed=82)
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert shapes == {
        key.removeprefix("image_proj."): shape
        for key, shape in layouts.plus(1024, 2048, 2048, 12, depth=1).items()
    }
    ours = Resampler.from_shapes(shapes, device="meta")
    ours.load_state_dict(theirs.state_dict(), assign=True)
    features = torch.randn(1, 577, 1024, generator=torch.Generator().manual_seed(83))
    with torch.no_grad():
        assert max_error(ours(features), theirs(features), "Kolors plus") <= LIMIT
