"""End to end: the host's own sampler with our nodes' code beside a loop of diffusers' scheduler and transformer."""

from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny_flux, tiny_sd3

LIMIT = 2e-5  # relative
STEPS, WEIGHT, SIZE = 4, 0.7, (8, 12)
pytestmark = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
if hasattr(host_attention, "wrap_attn"):
    from support import flux_oracle, sd3_oracle
    from support.flow_loop import POSITIVE, chunks_of, denoised

each_cfg = pytest.mark.parametrize("cfg", [1.0, 3.0])


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise():
    return randn(1, 16, *SIZE, seed=9)  # as the sample functions have it


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def by_role(cond, uncond, cfg):
    """(rows, …), of what the rows of each conditioning have."""
    return torch.stack([cond if role == POSITIVE else uncond for role in chunks_of(cfg)])


def said(prompts, cfg):
    """(contexts, pooled vectors) of the rows."""
    positive, negative = (pair[0] for pair in prompts)
    contexts = by_role(positive[0][0], negative[0][0], cfg)
    return contexts, by_role(positive[1]["pooled_output"][0], negative[1]["pooled_output"][0], cfg)


def compare(twin, ours, theirs, plain):
    """theirs: before the host's own scaling of latents."""
    theirs = twin.model.model.process_latent_out(theirs)
    assert relative(ours, theirs) <= LIMIT
    assert relative(ours, plain) > 100 * LIMIT


def flux_loop(twin, cfg, embeds):
    contexts, pooled = said(tiny_flux.prompts(), cfg)
    batch = flux_oracle.make_batch(chunks_of(cfg), size=SIZE)
    batch = replace(batch, context=contexts, pooled=pooled)

    def predict(latents, time):
        return twin(replace(batch, x=latents, time=torch.full((len(latents),), float(time) / 1000)), embeds)

    return denoised(predict, noise(), "Flux", STEPS, cfg)


@each_cfg
def test_xlabs(cfg):
    twin, roles = flux_oracle.Twin(), {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs()
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    adapter = host.HostAdapter(Checkpoint("xlabs", **roles))
    seen = randn(2, 48, seed=1)
    tokens = adapter.project(Features(seen))
    patched = host.apply_prompt(twin.model, make_prompt(adapter, tokens[:1], tokens[1:]), WEIGHT)
    twin.load_xlabs(roles, scale=WEIGHT)
    theirs = flux_loop(twin, cfg, [by_role(seen[:1], seen[1:], cfg)])
    ours, plain = (tiny_flux.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)


@each_cfg
def test_instantx(cfg):
    twin, roles = flux_oracle.Twin(), tiny_flux.instantx()
    adapter = host.HostAdapter(Checkpoint("instantx", **roles))
    tokens = adapter.project(Features(randn(1, 48, seed=1)))
    nothing = torch.zeros_like(tokens)
    patched = host.apply_prompt(twin.model, make_prompt(adapter, tokens, nothing), WEIGHT)
    twin.load_instantx(roles["ip_adapter"], by_role(tokens[0], nothing[0], cfg), WEIGHT)
    theirs = flux_loop(twin, cfg, ())
    ours, plain = (tiny_flux.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)


@each_cfg
def test_sd35(cfg):
    twin, roles = sd3_oracle.Twin(), tiny_sd3.instantx()
    adapter = host.HostAdapter(Checkpoint("sd35", **roles))
    image = randn(1, 9, tiny_sd3.FEATURE, seed=1)
    prompt = make_prompt(adapter, adapter.project(Features(image)), torch.zeros_like(image))
    patched = host.apply_prompt(twin.model, prompt, WEIGHT)
    twin.load(roles, WEIGHT)
    contexts, pooled = said(tiny_sd3.prompts(), cfg)
    batch = sd3_oracle.make_batch(chunks_of(cfg), size=SIZE)
    batch = replace(batch, context=contexts, pooled=pooled)
    seen = [by_role(image[0], torch.zeros_like(image[0]), cfg)]

    def predict(latents, time):
        return twin(replace(batch, x=latents, time=time.expand(len(latents))), seen)

    theirs = denoised(predict, noise(), "SD3.5", STEPS, cfg)
    ours, plain = (tiny_sd3.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)
