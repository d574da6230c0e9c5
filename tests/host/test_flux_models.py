"""The models that Flux's adapters are for, and their neighbours with other blocks, as the host builds them (tiny)."""

import pytest
import torch
from helpers.beside import has_hooks
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny_flux
from support.prompts import counted_residuals
from support.tiny_flux import RELEASED

pytestmark = has_hooks
DEV = tiny_flux.flux_config(*RELEASED)
REFERENCES = torch.randn(1, 16, 6, 4, generator=torch.Generator().manual_seed(4))
MODELS = {
    "dev": (DEV, None),
    "schnell": ({**DEV, "guidance_embed": False}, None),
    "Fill": ({**DEV, "in_channels": 96}, None),
    "Kontext": (DEV, REFERENCES),
    "Chroma": (tiny_flux.chroma_config(), None),
}


def prompt_of(kind, double, single):
    if kind == "xlabs":
        tensors = {key: tensor * 0.3 for key, tensor in tiny_flux.xlabs(double).items()}
        roles = {"image_proj": {}, "ip_adapter": {}}
        for key, (role, name) in role_names(tensors).items():
            roles[role][name] = tensors[key]
    else:
        roles = tiny_flux.instantx(double + single)
    adapter = host.HostAdapter(Checkpoint(kind, **roles))
    tokens = adapter.project(Features(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))))
    uncond = tokens[1:] if kind == "xlabs" else torch.zeros_like(tokens[1:])
    return make_prompt(adapter, tokens[:1], uncond)


@pytest.mark.parametrize("kind", ["xlabs", "instantx"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_steered_in_every_block(name, kind, monkeypatch):
    config, refs = MODELS[name]
    model = tiny_flux.host_model(config)
    assert host.base_family(model) == ("Chroma" if name == "Chroma" else "Flux.1")
    patched = host.apply_prompt(model, prompt_of(kind, *RELEASED), 0.5)
    with counted_residuals(monkeypatch) as calls:
        steered = tiny_flux.sample(patched, steps=2, refs=refs)
    assert (len(calls), set(calls.values())) == (19 if kind == "xlabs" else 57, {2})
    plain = tiny_flux.sample(model, steps=2, refs=refs)
    assert torch.isfinite(steered).all()
    assert (steered - plain).norm() > 1e-3 * plain.norm()


@pytest.mark.parametrize("kind", ["xlabs", "instantx"])
@pytest.mark.parametrize("blocks", [(8, 48), (18, 39), (19, 20), (8, 38)], ids=str)
def test_other_blocks_are_refused_before_sampling(blocks, kind):
    model = tiny_flux.host_model(tiny_flux.flux_config(*blocks))
    words = (
        f"{blocks[0]} double and {blocks[1]} single blocks.*Flux.1 and Chroma have 19 double and 38 single"
    )
    with pytest.raises(MismatchError, match=words):
        host.apply_prompt(model, prompt_of(kind, *RELEASED), 0.5)


def test_another_width_is_refused():
    config = {**DEV, "hidden_size": 64, "num_heads": 4}
    with pytest.raises(
        MismatchError,
        match=r"is Flux\.1 of other sizes.*19 sites up to 32 wide.*, the model 57 sites up to 64 wide",
    ):
        host.apply_prompt(tiny_flux.host_model(config), prompt_of("xlabs", *RELEASED), 0.5)
