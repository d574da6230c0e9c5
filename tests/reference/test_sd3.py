"""SD3.5: InstantX's adapter beside diffusers' own, through our nodes' code and the host's model."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from support import tiny_sd3
from support.parity import max_error

LIMIT = 2e-5
COND, UNCOND = 0, 1
IMAGE = 9  # encoder tokens of one image
pytestmark = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
if hasattr(host_attention, "wrap_attn"):
    from support.sd3_oracle import Twin, make_batch

BATCHES = {
    "one": {},
    "negative first": {"chunks": (1, 0), "pictures": 2},
    "taller": {"chunks": (0, 1), "size": (12, 6)},
}
_twins: dict = {}


@pytest.fixture(params=[2, 38], ids=["2 blocks", "38 blocks"])
def twin(request):
    if request.param not in _twins:
        _twins[request.param] = Twin(request.param)
    return _twins[request.param]


def blocks(twin):
    return len(host.model_sites(twin.model))


def adapter_of(twin, seed=7):
    roles = tiny_sd3.instantx(blocks(twin), seed=seed)
    return roles, host.HostAdapter(Checkpoint(f"sd35-{seed}", **roles))


def features(count, seed):
    return torch.randn(count, IMAGE, tiny_sd3.FEATURE, generator=torch.Generator().manual_seed(seed))


def prompt_of(adapter, cond, uncond=None, **options):
    """uncond None: zero features."""
    uncond = torch.zeros_like(cond[:1]) if uncond is None else uncond
    tokens = adapter.project(Features(torch.cat((cond, uncond))))
    return make_prompt(adapter, tokens[: len(cond)], tokens[len(cond) :], **options)


def rows(batch, cond, uncond=None):
    """(rows, tokens, width) of one image's features as diffusers wants them."""
    uncond = torch.zeros_like(cond) if uncond is None else uncond
    pictures = batch.x.shape[0] // len(batch.chunks)
    return torch.stack([cond if role == COND else uncond for role in batch.chunks for _ in range(pictures)])


def error(ours, theirs):
    return max_error(ours, theirs, "SD3.5")


@pytest.mark.parametrize("batch", BATCHES)
def test_the_models_are_the_same_without_adapters(twin, batch):
    batch = make_batch(**BATCHES[batch])
    assert error(twin.host(twin.model, batch), twin(batch)) <= LIMIT


@pytest.mark.parametrize("batch", BATCHES)
def test_as_diffusers(twin, batch, called):
    batch = make_batch(**BATCHES[batch])
    roles, adapter = adapter_of(twin)
    image = features(1, 1)
    patched = host.apply_prompt(twin.model, prompt_of(adapter, image), 0.7)
    ours = twin.host(patched, batch)
    theirs = twin.load(roles, 0.7)(batch, [rows(batch, image[0])])
    assert error(ours, theirs) <= LIMIT
    assert error(ours, twin.host(twin.model, batch)) > 1000 * LIMIT
    assert len(called) == len(set(called)) == blocks(twin)


@pytest.mark.parametrize("batch", BATCHES)
def test_several_images_with_weights_by_block(twin, batch):
    """Beside one zero image where nothing is to be seen: two of the same would take more of the attention."""
    batch = make_batch(**BATCHES[batch])
    roles, adapter = adapter_of(twin)
    images, count = features(3, 1), blocks(twin)
    scales = [0.3 + 0.6 * n / count for n in range(count)]
    weights = {f"joint {n}": scale for n, scale in enumerate(scales)}
    patched = host.apply_prompt(twin.model, prompt_of(adapter, images), 1.0, layer_weights=weights)
    ours = twin.host(patched, batch)
    twin.load(roles, scales)
    pictures = batch.x.shape[0] // len(batch.chunks)
    for number, role in enumerate(batch.chunks):
        block = slice(number * pictures, (number + 1) * pictures)
        seen = images if role == COND else torch.zeros_like(images[:1])
        theirs = twin(batch, [rows(batch, image, image) for image in seen])
        assert error(ours[block], theirs[block]) <= LIMIT


def test_images_one_each(twin):
    batch = make_batch((1, 0), pictures=2)
    roles, adapter = adapter_of(twin)
    images = features(2, 1)
    prompt = prompt_of(adapter, images, arrange=Arrange.ONE_EACH)
    ours = twin.host(host.apply_prompt(twin.model, prompt, 0.7), batch)
    zero = torch.zeros_like(images[0])
    theirs = twin.load(roles, 0.7)(batch, [torch.stack((zero, zero, *images))])
    assert error(ours, theirs) <= LIMIT


def test_negative_images(twin):
    batch = make_batch((1, 0))
    roles, adapter = adapter_of(twin)
    image, other = features(1, 1), features(1, 2)
    ours = twin.host(host.apply_prompt(twin.model, prompt_of(adapter, image, other), 0.7), batch)
    theirs = twin.load(roles, 0.7)(batch, [rows(batch, image[0], other[0])])
    assert error(ours, theirs) <= LIMIT


def test_two_adapters_in_other_blocks(twin):
    """diffusers takes one: two that act in different blocks are one with the pairs of both, where their tokens are equal."""
    batch, count = make_batch((1, 0)), blocks(twin)
    first, second = (tiny_sd3.instantx(count, seed=seed) for seed in (7, 8))
    second["image_proj"] = first["image_proj"]
    image, half = features(1, 1), count // 2
    model = twin.model
    for roles, mine in ((first, range(half)), (second, range(half, count))):
        adapter = host.HostAdapter(Checkpoint("part", **roles))
        weights = {f"joint {n}": float(n in mine) for n in range(count)}
        model = host.apply_prompt(model, prompt_of(adapter, image), 0.7, layer_weights=weights)
    pairs = {
        key: (first if int(key.split(".")[0]) < half else second)["ip_adapter"][key]
        for key in first["ip_adapter"]
    }
    twin.load({"image_proj": first["image_proj"], "ip_adapter": pairs}, 0.7)
    assert error(twin.host(model, batch), twin(batch, [rows(batch, image[0])])) <= LIMIT


def test_two_of_one_kind_add_up(twin):
    batch = make_batch((1, 0))
    roles, adapter = adapter_of(twin)
    image = features(1, 1)
    model = twin.model
    for weight in (0.5, 0.2):
        model = host.apply_prompt(model, prompt_of(adapter, image), weight)
    theirs = twin.load(roles, 0.7)(batch, [rows(batch, image[0])])
    assert error(twin.host(model, batch), theirs) <= LIMIT


def test_a_weight_of_an_image_is_one_on_what_it_adds(twin):
    batch = make_batch((1, 0))
    roles, adapter = adapter_of(twin)
    image = features(1, 1)
    prompt = prompt_of(adapter, image, image_weights=[0.5])
    ours = twin.host(host.apply_prompt(twin.model, prompt, 0.8), batch)
    twin.load(roles, 0.8)
    theirs = twin(batch, [rows(batch, image[0])])
    assert error(ours[:1], theirs[:1]) <= LIMIT
    halved = twin.load(roles, 0.4)(batch, [rows(batch, image[0])])
    assert error(ours[1:], halved[1:]) <= LIMIT
