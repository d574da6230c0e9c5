"""Heat maps on Flux: on the host's own model where it has the hooks, and on a stand-in everywhere."""

import pytest
import torch
from helpers.beside import has_hooks
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny_flux, transformer

MASK = torch.zeros(1, 64, 96)
MASK[..., :48] = 1


@pytest.fixture(params=["stand-in", pytest.param("host", marks=has_hooks)])
def sampled(request, monkeypatch):
    """Of a model: its model, and how to sample it."""
    if request.param == "host":
        return tiny_flux.host_model(tiny_flux.flux_config(2, 2)), tiny_flux.sample
    transformer.install_hooks(monkeypatch)
    return transformer.stand_in(2, 2), transformer.sample


@pytest.fixture(params=["xlabs", "instantx"])
def prompt(request):
    if request.param == "xlabs":
        roles = {"image_proj": {}, "ip_adapter": {}}
        tensors = tiny_flux.xlabs(2, seed=7)
        for key, (role, name) in role_names(tensors).items():
            roles[role][name] = tensors[key]
    else:
        roles = tiny_flux.instantx(4, seed=7)
    adapter = host.HostAdapter(Checkpoint(request.param, **roles))
    tokens = adapter.project(Features(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))))
    return make_prompt(adapter, tokens[:1], tokens[1:])


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
    sites = {"xlabs": 2, "instantx": 4}[prompt.adapter.name]
    assert run.calls == 2 * sites
