"""Flux and Chroma: XLabs' adapters beside diffusers, InstantX's beside its formula on diffusers' transformer."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from support import tiny_flux
from support.parity import call, max_error

LIMIT = 2e-5
COND = 0
has_hooks = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
pytestmark = has_hooks
if hasattr(host_attention, "wrap_attn"):
    from support.flux_oracle import Twin, make_batch

    MODELS = {"Flux": {}, "Flux 3+1": {"double": 3, "single": 1}, "Chroma": {"chroma": True}}
else:
    MODELS = {"Flux": {}}
BATCHES = {
    "one": {},
    "negative first": {"chunks": (1, 0), "pictures": 2},
    "taller": {"chunks": (0, 1), "size": (12, 6)},
}
_twins: dict = {}


@pytest.fixture(params=MODELS)
def twin(request):
    if request.param not in _twins:
        _twins[request.param] = Twin(**MODELS[request.param])
    return _twins[request.param]


def counts(twin):
    sites = host.model_sites(twin.model)
    return sum(site.stage == "double" for site in sites), len(sites)


def released(tensors):
    """A flat file by role, as diffusers takes it."""
    roles = {"image_proj": {}, "ip_adapter": {}}
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return roles


def xlabs(twin, seed=7):
    tensors = released(tiny_flux.xlabs(counts(twin)[0], seed=seed))
    if twin.chroma:  # 19 blocks in a row: a gentler one
        tensors["ip_adapter"] = {key: tensor * 0.3 for key, tensor in tensors["ip_adapter"].items()}
    return tensors, host.HostAdapter(Checkpoint(f"xlabs-{seed}", **tensors))


def features(count, seed):
    return torch.randn(count, 48, generator=torch.Generator().manual_seed(seed))


def prompt_of(adapter, cond, uncond, arrange=Arrange.TOGETHER):
    tokens = adapter.project(Features(torch.cat((cond, uncond))))
    return make_prompt(adapter, tokens[: len(cond)], tokens[len(cond) :], arrange)


def rows(batch, cond, uncond):
    """(rows, images, width) as diffusers wants them, of features (images, width) for all pictures."""
    pictures = batch.x.shape[0] // len(batch.chunks)
    return torch.stack([cond if role == COND else uncond for role in batch.chunks for _ in range(pictures)])


def error(ours, theirs):
    return max_error(ours, theirs, "Flux")


@pytest.mark.parametrize("batch", BATCHES)
def test_the_models_are_the_same_without_adapters(twin, batch):
    batch = make_batch(**BATCHES[batch])
    twin.network.encoder_hid_proj = None
    assert error(twin.host(twin.model, batch), twin(batch)) <= LIMIT


@pytest.mark.parametrize("batch", BATCHES)
def test_xlabs_as_diffusers(twin, batch, called):
    batch = make_batch(**BATCHES[batch])
    tensors, adapter = xlabs(twin)
    cond, uncond = features(1, 1), features(1, 2)
    patched = host.apply_prompt(twin.model, prompt_of(adapter, cond, uncond), 0.8)
    ours = twin.host(patched, batch)
    theirs = twin.load_xlabs(tensors, scale=0.8)(batch, [rows(batch, cond, uncond)])
    assert error(ours, theirs) <= LIMIT
    assert error(ours, twin.host(twin.model, batch)) > 1000 * LIMIT
    assert len(called) == len(set(called)) == counts(twin)[0]


def test_xlabs_of_several_images_with_weights_by_block(twin):
    batch = make_batch((1, 0))
    tensors, adapter = xlabs(twin)
    cond, uncond = features(3, 1), features(3, 2)
    double = counts(twin)[0]
    scales = [0.3 + 0.6 * n / double for n in range(double)]
    text = ", ".join(f"double {n}: {scale}" for n, scale in enumerate(scales))
    weights = call("ImagePromptLayerWeights", twin.model, blocks=text)
    patched = host.apply_prompt(twin.model, prompt_of(adapter, cond, uncond), 1.0, layer_weights=weights)
    theirs = twin.load_xlabs(tensors, scale=[scales])(batch, [rows(batch, cond, uncond)])
    assert error(twin.host(patched, batch), theirs) <= LIMIT


def test_two_of_xlabs(twin):
    batch = make_batch((1, 0))
    (first, one), (second, other) = xlabs(twin, 7), xlabs(twin, 8)
    cond, uncond = features(1, 1), features(1, 2)
    prompt = prompt_of(one, cond, uncond)
    patched = host.apply_prompt(twin.model, prompt, 0.8)
    patched = host.apply_prompt(patched, prompt_of(other, uncond, cond), 0.5)
    double = counts(twin)[0]
    twin.load_xlabs(first, second, scale=[[0.8] * double, [0.5] * double])
    theirs = twin(batch, [rows(batch, cond, uncond), rows(batch, uncond, cond)])
    assert error(twin.host(patched, batch), theirs) <= LIMIT


@pytest.mark.parametrize("negative", ["nothing", "zero vector"])
@pytest.mark.parametrize("batch", BATCHES)
def test_instantx_as_its_formula(twin, batch, negative, called):
    batch = make_batch(**BATCHES[batch])
    tensors = tiny_flux.instantx(counts(twin)[1])
    adapter = host.HostAdapter(Checkpoint("instantx", **tensors))
    tokens = adapter.project(Features(features(1, 1)))
    zero = adapter.project(Features(torch.zeros(1, 48)))
    nothing = negative == "nothing"
    patched = host.apply_prompt(
        twin.model, make_prompt(adapter, tokens, zero[:, :0] if nothing else zero), 0.7
    )
    ours = twin.host(patched, batch)
    by_row = rows(batch, tokens[0], torch.zeros_like(tokens[0]) if nothing else zero[0])
    before, projection = twin.network.attn_processors, twin.network.encoder_hid_proj
    twin.network.encoder_hid_proj = None
    try:
        theirs = twin.load_instantx(tensors["ip_adapter"], by_row, 0.7)(batch)
    finally:
        twin.network.set_attn_processor(dict(before))
        twin.network.encoder_hid_proj = projection
    assert error(ours, theirs) <= LIMIT
    plain = twin.host(twin.model, batch)
    assert error(ours, plain) > 1000 * LIMIT
    assert len(called) == len(set(called)) == counts(twin)[1]
    pictures = batch.x.shape[0] // len(batch.chunks)
    for number, role in enumerate(batch.chunks):
        block = slice(number * pictures, (number + 1) * pictures)
        assert torch.equal(ours[block], plain[block]) is (role != COND and nothing)
