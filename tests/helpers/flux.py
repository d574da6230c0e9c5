"""Flux for tests of the host's room: the host's own small model, the stand-in, prompts for both, another pack's patches."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from support import tiny_flux, transformer

HAS_HOOKS = hasattr(host_attention, "wrap_attn")
has_hooks = pytest.mark.skipif(
    not HAS_HOOKS,
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
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


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


def foreign(model, patch, places=(("double_block", 1), ("single_block", 0))):
    model = model.clone()
    for place in places:
        model.set_model_patch_replace(patch, "dit", *place)
    return model
