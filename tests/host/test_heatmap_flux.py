"""Heat maps on Flux: on the host's own model where it has the hooks, and on a stand-in everywhere."""

import pytest
import torch
from helpers.beside import has_hooks
from helpers.heat import assert_same_as_by_hand
from image_prompt import host
from image_prompt.host.attach import base
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.lab.benchmarks.counting import count
from support import tiny_flux, transformer

MASK = torch.zeros(1, 64, 96)
MASK[..., :48] = 1


@pytest.fixture(params=["stand-in", *(pytest.param(name, marks=has_hooks) for name in ("Flux.1", "Chroma"))])
def world(request, monkeypatch):
    """Of a model: its model, how to sample it, and its numbers of double and single blocks."""
    if request.param == "stand-in":
        transformer.install_hooks(monkeypatch)
        return transformer.stand_in(2, 2), transformer.sample, (2, 2)
    if request.param == "Chroma":
        return tiny_flux.host_model(tiny_flux.chroma_config()), tiny_flux.sample, tiny_flux.RELEASED
    return tiny_flux.host_model(tiny_flux.flux_config(2, 2)), tiny_flux.sample, (2, 2)


@pytest.fixture
def sampled(world):
    return world[:2]


def prompt_of(kind, blocks, seed=7):
    if kind == "xlabs":
        roles = {"image_proj": {}, "ip_adapter": {}}
        tensors = tiny_flux.xlabs(blocks[0], seed=seed)
        for key, (role, name) in role_names(tensors).items():
            roles[role][name] = tensors[key]
    else:
        roles = tiny_flux.instantx(sum(blocks), seed=seed)
    adapter = host.HostAdapter(Checkpoint(kind, **roles))
    tokens = adapter.project(Features(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))))
    return make_prompt(adapter, tokens[:1], tokens[1:])


@pytest.fixture(params=["xlabs", "instantx"])
def prompt(request, world):
    return prompt_of(request.param, world[2])


@pytest.fixture
def two_regions(world, prompt):
    model = host.apply_prompt(world[0], prompt, 0.8, mask=MASK)
    other = prompt_of(prompt.adapter.name, world[2], seed=8)
    return host.apply_prompt(model, other, 0.5, mask=0.2 + 0.8 * (1 - MASK))


@pytest.mark.parametrize("refs", [None, torch.ones(1, 16, 8, 6)])
def test_maps_are_the_norms_of_the_residuals_by_hand(world, two_regions, refs, by_hand):
    watched, watch = host.watched(two_regions, 0)
    options = {} if refs is None else {"refs": refs}
    world[1](watched, steps=2, size=(8, 12), **options)
    assert_same_as_by_hand(watch, watched, by_hand, (8, 12))


def test_without_the_node_operations_and_bytes_are_what_they_were(world, two_regions, monkeypatch):
    def counted(model):
        return count(lambda: world[1](model, steps=1, size=(8, 12)))

    after = counted(two_regions)
    watched = counted(host.watched(two_regions, 0)[0])
    monkeypatch.setattr(base, "watch_site", lambda *_: None)
    assert counted(two_regions) == after
    assert watched.real > after.real
    assert watched.reads == after.reads


@pytest.mark.parametrize("refs", [None, torch.ones(1, 16, 8, 6)])
def test_a_prompt_acts_in_its_region(sampled, prompt, refs):
    """Text in front of the picture's tokens and reference latents behind them are none of its places."""
    model, sample = sampled
    plain = host.apply_prompt(model, prompt, 0.8, mask=MASK)
    watched, watch = host.watched(plain, 0)
    options = {} if refs is None else {"refs": refs}
    assert torch.equal(
        sample(watched, steps=2, size=(8, 12), **options), sample(plain, steps=2, size=(8, 12), **options)
    )
    (run,) = watch.runs.values()
    ((applied, maps),) = run.heat()
    assert (applied.name, maps.shape) == (prompt.adapter.name, (1, 8, 12))
    assert maps[..., :6].min() > 0
    assert maps[..., 6:].max() == 0
    sites = len(host.residuals_of(watched))
    assert run.calls == 2 * sites
