"""End to end: the host's own sampler with our nodes' code beside a loop of diffusers' scheduler and transformer."""

from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.nodes import NODE_CLASS_MAPPINGS
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


def flux_loop(twin, cfg, embeds, before_step=lambda: None):
    contexts, pooled = said(tiny_flux.prompts(), cfg)
    batch = flux_oracle.make_batch(chunks_of(cfg), size=SIZE)
    batch = replace(batch, context=contexts, pooled=pooled)

    def predict(latents, time):
        before_step()
        return twin(replace(batch, x=latents, time=torch.full((len(latents),), float(time) / 1000)), embeds)

    return denoised(predict, noise(), "Flux", STEPS, cfg)


def xlabs_prompt():
    """(roles of the adapter's file, prompt, what the encoder saw of the image and of no image)"""
    roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs()
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    adapter = host.HostAdapter(Checkpoint("xlabs", **roles))
    seen = randn(2, 48, seed=1)
    tokens = adapter.project(Features(seen))
    return roles, make_prompt(adapter, tokens[:1], tokens[1:]), seen


@each_cfg
def test_xlabs(cfg):
    twin, (roles, prompt, seen) = flux_oracle.Twin(), xlabs_prompt()
    patched = host.apply_prompt(twin.model, prompt, WEIGHT)
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


def sd3_prompt():
    """(roles of the adapter's file, prompt, what the encoder saw of the image)"""
    roles = tiny_sd3.instantx()
    adapter = host.HostAdapter(Checkpoint("sd35", **roles))
    image = randn(1, 9, tiny_sd3.FEATURE, seed=1)
    prompt = make_prompt(adapter, adapter.project(Features(image)), torch.zeros_like(image))
    return roles, prompt, image


def sd3_loop(twin, cfg, image, before_step=lambda: None):
    contexts, pooled = said(tiny_sd3.prompts(), cfg)
    batch = sd3_oracle.make_batch(chunks_of(cfg), size=SIZE)
    batch = replace(batch, context=contexts, pooled=pooled)
    seen = [by_role(image[0], torch.zeros_like(image[0]), cfg)]

    def predict(latents, time):
        before_step()
        return twin(replace(batch, x=latents, time=time.expand(len(latents))), seen)

    return denoised(predict, noise(), "SD3.5", STEPS, cfg)


@each_cfg
def test_sd35(cfg):
    twin, (roles, prompt, image) = sd3_oracle.Twin(), sd3_prompt()
    patched = host.apply_prompt(twin.model, prompt, WEIGHT)
    twin.load(roles, WEIGHT)
    theirs = sd3_loop(twin, cfg, image)
    ours, plain = (tiny_sd3.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)


CURVE = "0:0.2, 0.4:1, 0.7:0.5"
FACTORS = (0.2, 0.7, 1 - 0.5 / 3, 0.5)  # at the fractions 0, 1/4, 1/2, 3/4 of the four steps


def curved(model, prompt):
    node = NODE_CLASS_MAPPINGS["ImagePromptApply"]()
    return getattr(node, node.FUNCTION)(model, prompt, WEIGHT, weight_curve=CURVE)[0]


@each_cfg
def test_a_curve_is_a_scale_for_each_step_of_flux(cfg):
    """As a callback of diffusers' pipeline sets it."""
    twin, (roles, prompt, seen) = flux_oracle.Twin(), xlabs_prompt()
    patched, scales = curved(twin.model, prompt), iter(FACTORS)
    twin.load_xlabs(roles)
    theirs = flux_loop(
        twin, cfg, [by_role(seen[:1], seen[1:], cfg)], lambda: twin.scale_xlabs(WEIGHT * next(scales))
    )
    ours, plain = (tiny_flux.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)


@each_cfg
def test_a_curve_is_a_scale_for_each_step_of_sd35(cfg):
    twin, (roles, prompt, image) = sd3_oracle.Twin(), sd3_prompt()
    patched, scales = curved(twin.model, prompt), iter(FACTORS)
    twin.load(roles, WEIGHT)
    theirs = sd3_loop(twin, cfg, image, lambda: twin.scale(WEIGHT * next(scales)))
    ours, plain = (tiny_sd3.sample(model, STEPS, cfg) for model in (patched, twin.model))
    compare(twin, ours, theirs, plain)
