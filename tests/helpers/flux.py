"""Flux for tests of the host's room: the host's own small model, the stand-in, and prompts for both."""

import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from support import tiny_flux, transformer

DOUBLE, SINGLE = 2, 2


class OnHost:
    sample = staticmethod(tiny_flux.sample)
    make = staticmethod(lambda: tiny_flux.host_model(tiny_flux.flux_config(DOUBLE, SINGLE)))


class StandIn:
    sample = staticmethod(transformer.sample)
    make = staticmethod(lambda: transformer.stand_in(DOUBLE, SINGLE))


def xlabs_adapter(seed=7):
    roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs(DOUBLE, seed=seed)
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return host.HostAdapter(Checkpoint(f"xlabs-{seed}", **roles))


def instantx_adapter(seed=7):
    return host.HostAdapter(Checkpoint(f"instantx-{seed}", **tiny_flux.instantx(DOUBLE + SINGLE, seed=seed)))


def prompt_of(kind, seed=1, images=1, arrange=Arrange.TOGETHER):
    adapter = {"xlabs": xlabs_adapter, "instantx": instantx_adapter}[kind]()
    features = torch.randn(images + 1, 48, generator=torch.Generator().manual_seed(seed))
    tokens = adapter.project(Features(features))
    uncond = tokens[images:] if kind == "xlabs" else torch.zeros_like(tokens[images:])
    return make_prompt(adapter, tokens[:images], uncond, arrange)
