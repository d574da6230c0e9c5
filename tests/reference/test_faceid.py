"""The FaceID family: identity and face in, noise prediction out, against the published code and diffusers."""

import pytest
import torch
from diffusers.loaders import unet as loaders
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection
from helpers import published
from helpers.faces import given_faces
from image_prompt.ipadapter_core.projections.faceid import (
    FaceIDPlusProjection,
    FaceIDPlusV2Projection,
    FaceIDProjection,
    IdentityResampler,
)
from support import layouts
from support.oracle import COND, lively_
from support.parity import LIMIT, call, make_batch, max_error, run_loaded, with_tokens

KINDS = {
    "faceid": 4,
    "faceid portrait": 16,
    "faceid plus": 4,
    "faceid plus v2": 4,
    "faceid portrait unnorm": 16,
}
PLUS = ("faceid plus", "faceid plus v2")
RANK, STRUCTURE, LORA = 8, 0.7, 0.5


@pytest.fixture
def small_networks(monkeypatch):
    """diffusers assumes the released width of the feed-forward layers; the small adapters have 128."""

    def small(**sizes):
        return IPAdapterFaceIDPlusImageProjection(ffn_ratio=128 / sizes["embed_dims"], **sizes)

    monkeypatch.setattr(loaders, "IPAdapterFaceIDPlusImageProjection", small)


def their_tokens(twins, kind, proj, identity, aligned):
    """Tokens of one face by diffusers' networks, of the published resampler where diffusers has none for faces."""
    if kind == "faceid portrait unnorm":
        network = published.projection("plus", 512, twins.family.context, width=128, heads=2)
        network.load_state_dict(proj)
        return network(identity[:, None])
    network = loaders.UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers(
        None, proj, low_cpu_mem_usage=False
    ).eval()
    if kind in PLUS:
        assert isinstance(network, IPAdapterFaceIDPlusImageProjection)
        network.clip_embeds = aligned[None]
        network.shortcut, network.shortcut_scale = kind.endswith("v2"), STRUCTURE
    return network(identity)


def both_tokens(twins, kind, proj, faces):
    """(no face, face): what stands for chunk 1 and chunk 0, as get_image_embeds of ip_adapter_faceid.py makes them."""
    seen = nothing = None
    if kind in PLUS:
        seen = twins.reference_encoder.images(kind, faces.aligned)
        nothing = twins.reference_encoder.nothing(kind)
    identity = faces.embeddings(normalise=not kind.endswith("unnorm"))
    with torch.no_grad():
        face = their_tokens(twins, kind, proj, identity, seen)
        no_face = their_tokens(twins, kind, proj, torch.zeros_like(identity), nothing)
    return face, no_face


def encode(twins, adapter, faces, **options):
    return call(
        "ImagePromptEncodeFace",
        adapter.ours,
        faces,
        structure_weight=STRUCTURE,
        clip_vision=twins.encoder,
        **options,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_with_its_lora_predicts_the_same_noise_as_the_published_code(twins, kind, small_networks):
    rank = 0 if "portrait" in kind else RANK
    adapter = twins.adapter(kind, lora_rank=rank)
    batch, faces = make_batch(twins.family), given_faces()
    face, no_face = both_tokens(twins, kind, adapter.tensors["image_proj"], faces)
    tokens = torch.cat([face if chunk == COND else no_face for chunk in batch.chunks])
    unet = twins.oracle.load().unet
    processors = published.processors(unet, adapter.tensors["ip_adapter"], 0.8, KINDS[kind], rank, LORA)

    patched = twins.apply(encode(twins, adapter, faces), 0.8, lora_strength=LORA)
    ours = run_loaded(patched, batch)
    theirs = twins.oracle.use(processors)(with_tokens(batch, tokens))

    assert max_error(ours, theirs, f"{kind} {twins.family.name}") <= LIMIT
    assert faces.asked == ([{"SD1.5": 224, "SDXL": 256}[twins.family.name]] if kind in PLUS else [])


def test_leaving_out_the_lora_would_be_seen(twins):
    adapter, batch = twins.adapter("faceid", lora_rank=RANK), make_batch(twins.family)
    prompt = encode(twins, adapter, given_faces())
    with_lora, without = (
        run_loaded(twins.apply(prompt, lora_strength=strength), batch) for strength in (1.0, 0.0)
    )
    assert max_error(with_lora, without, "LoRA left out") > 1000 * LIMIT


def test_v2_differs_from_v1_by_far_more_than_the_limit(twins):
    """Their keys are the same; taking one for the other must show."""
    batch, faces = make_batch(twins.family), given_faces()
    made = [encode(twins, twins.adapter(kind), faces) for kind in PLUS]
    v1, v2 = (run_loaded(twins.apply(prompt), batch) for prompt in made)
    assert max_error(v1, v2, "v1 against v2") > 100 * LIMIT


def test_the_weights_of_the_model_are_as_before(twins):
    state = {k: v.clone() for k, v in twins.model.model.state_dict().items()}
    adapter = twins.adapter("faceid", lora_rank=RANK)
    run_loaded(twins.apply(encode(twins, adapter, given_faces())), make_batch(twins.family))
    assert all(torch.equal(state[k], v) for k, v in twins.model.model.state_dict().items())


# name -> our class, arguments of the published or diffusers network at released size
RELEASED = {
    "faceid SD1.5": (FaceIDProjection, 768, 4),
    "faceid SDXL": (FaceIDProjection, 2048, 4),
    "portrait SD1.5": (FaceIDProjection, 768, 16),
}


@pytest.mark.parametrize("name", RELEASED)
def test_identity_tokens_are_those_of_the_published_network(name):
    kind, context, tokens = RELEASED[name]
    theirs = published.projection("faceid", 512, context, width=tokens).requires_grad_(False)
    lively_(theirs.state_dict(), seed=61)
    ours = kind.from_shapes({key: tuple(value.shape) for key, value in theirs.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    identity = torch.randn(3, 512, generator=torch.Generator().manual_seed(62))
    with torch.no_grad():
        assert max_error(ours(identity), theirs(identity), name) <= LIMIT


@pytest.mark.parametrize("kind", [FaceIDPlusProjection, FaceIDPlusV2Projection])
def test_tokens_of_the_released_plus_size_are_those_of_diffusers(kind):
    table = layouts.faceid_plus(1280, 768)
    proj = {key.removeprefix("image_proj."): torch.empty(shape) for key, shape in table.items()}
    lively_(proj, seed=63)
    ours = kind.from_shapes({key: tuple(value.shape) for key, value in proj.items()}, device="meta")
    ours.load_state_dict(proj, assign=True)
    theirs = loaders.UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers(
        None, proj, low_cpu_mem_usage=False
    ).eval()
    generator = torch.Generator().manual_seed(64)
    identity, seen = torch.randn(1, 512, generator=generator), torch.randn(1, 257, 1280, generator=generator)
    theirs.clip_embeds, theirs.shortcut, theirs.shortcut_scale = seen[None], kind.shortcut, STRUCTURE
    with torch.no_grad():
        assert max_error(ours(identity, seen, STRUCTURE), theirs(identity), kind.__name__) <= LIMIT


def test_a_face_embedding_is_one_feature_of_the_unnormed_portraits_resampler():
    theirs = published.projection("plus", 512, 2048, 1280, 20).requires_grad_(False)
    lively_(theirs.state_dict(), seed=65)
    ours = IdentityResampler.from_shapes(
        {key: tuple(value.shape) for key, value in theirs.state_dict().items()}, device="meta"
    )
    ours.load_state_dict(theirs.state_dict(), assign=True)
    identity = torch.randn(2, 512, generator=torch.Generator().manual_seed(66))
    with torch.no_grad():
        assert max_error(ours(identity[:, None]), theirs(identity[:, None]), "portrait unnorm") <= LIMIT
