"""Image prompts on Flux beside ComfyUI's own nodes and what other packs put in: they act, and weight 0 changes nothing."""

import comfy.sample
import pytest
import torch
from helpers.beside import has_hooks
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny_flux
from support.prompts import counted_residuals

pytestmark = has_hooks
DOUBLE = SINGLE = 3
TEXT = 7


@pytest.fixture(scope="module")
def model():
    return tiny_flux.host_model(tiny_flux.flux_config(DOUBLE, SINGLE))


@pytest.fixture(scope="module", params=["xlabs", "instantx"])
def prompt(request):
    if request.param == "xlabs":
        roles = {"image_proj": {}, "ip_adapter": {}}
        tensors = tiny_flux.xlabs(DOUBLE)
        for key, (role, name) in role_names(tensors).items():
            roles[role][name] = tensors[key]
    else:
        roles = tiny_flux.instantx(DOUBLE + SINGLE)
    adapter = host.HostAdapter(Checkpoint(request.param, **roles))
    tokens = adapter.project(Features(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))))
    return make_prompt(adapter, tokens[:1], tokens[1:] if request.param == "xlabs" else tokens[:1, :0])


def sample(model, sampler="euler", steps=3, cfg=3.0, **conditioning):
    """conditioning: more entries of both conditionings."""
    positive, negative = tiny_flux.prompts()
    for _, more in (*positive, *negative):
        more.update(conditioning)
    noise = torch.randn(1, tiny_flux.CHANNELS, 8, 12, generator=torch.Generator().manual_seed(9))
    given = (noise, steps, cfg, sampler, "simple", positive, negative, torch.zeros_like(noise))
    with torch.inference_mode():
        return comfy.sample.sample(model, *given, disable_pbar=True, seed=1)


def require_company(company, model, prompt, **how):
    """The prompt acts beside it, before or behind it alike, and at weight 0 not at all."""
    theirs = company(model)
    alone = sample(theirs, **how)
    steered = sample(host.apply_prompt(theirs, prompt, 0.8), **how)
    assert torch.isfinite(steered).all()
    assert (steered - alone).norm() > 1e-3 * alone.norm()
    assert torch.equal(sample(company(host.apply_prompt(model, prompt, 0.8)), **how), steered)
    assert torch.equal(sample(host.apply_prompt(theirs, prompt, 0.0), **how), alone)
    return alone, steered


def plain(model):
    return model


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "uni_pc", "lcm", "ddim"])
def test_samplers(sampler, model, prompt):
    require_company(plain, model, prompt, sampler=sampler)


def test_a_lora_on_the_model(model, prompt):
    key = "diffusion_model.double_blocks.0.img_attn.qkv.weight"

    def with_lora(model):
        patched = model.clone()
        shape = model.model.state_dict()[key].shape
        change = torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 0.1
        patched.add_patches({key: ("diff", (change,))}, 0.7)
        return patched

    alone, _ = require_company(with_lora, model, prompt)
    assert not torch.equal(alone, sample(model))


def test_residuals_of_a_controlnet(model, prompt):
    import comfy.controlnet

    class Control(comfy.controlnet.ControlBase):
        def get_control(self, x, *_, **__):
            tokens = x.shape[-2] // 2 * (x.shape[-1] // 2)
            add = torch.full((x.shape[0], tokens, tiny_flux.WIDTH), 0.1)
            return {"input": [add] * DOUBLE, "output": [add] * SINGLE}

        def get_models(self):
            return []

    how = {"control": Control(), "control_apply_to_uncond": False}
    alone, _ = require_company(plain, model, prompt, **how)
    assert not torch.equal(alone, sample(model))


def test_redux_with_a_mask_of_attention(model, prompt):
    """ComfyUI's Apply Style Model weighs its tokens by a bias over text and picture."""
    size = TEXT + 4 * 6
    bias = torch.zeros(1, size, size)
    bias[:, TEXT:, :2] = -2.0
    how = {"attention_mask": bias, "attention_mask_img_shape": (4, 6)}
    alone, _ = require_company(plain, model, prompt, **how)
    assert not torch.equal(alone, sample(model))


def test_tokens_that_uso_puts_in_front_of_the_text(model, prompt):
    def put_in(kwargs):
        txt, ids = kwargs["txt"], kwargs["txt_ids"]
        kwargs["txt"] = torch.cat([torch.full_like(txt[:, :3], 0.3), txt], 1)
        kwargs["txt_ids"] = torch.cat([torch.zeros_like(ids[:, :3]), ids], 1)
        return kwargs

    def with_tokens(model):
        patched = model.clone()
        patched.set_model_post_input_patch(put_in)
        return patched

    alone, _ = require_company(with_tokens, model, prompt)
    assert not torch.equal(alone, sample(model))
    mask = torch.zeros(1, 8, 12)
    mask[..., :6] = 1
    parts = host.apply_prompt(host.apply_prompt(model, prompt, 0.8, mask=mask), prompt, 0.8, mask=1 - mask)
    whole = sample(with_tokens(host.apply_prompt(model, prompt, 0.8)))
    assert (sample(with_tokens(parts)) - whole).norm() <= 1e-5 * whole.norm()


def test_skip_layer_guidance(model, prompt, monkeypatch):
    from comfy_extras import nodes_slg

    def guided(model):
        node = nodes_slg.SkipLayerGuidanceDiT
        given = {
            "scale": 2.0,
            "start_percent": 0.0,
            "end_percent": 1.0,
            "double_layers": "1",
            "single_layers": "0",
        }
        run = getattr(node, "execute", None) or node().skip_guidance
        made = run(model, **given)
        return made[0]

    alone, _ = require_company(guided, model, prompt)
    assert not torch.equal(alone, sample(model))
    with counted_residuals(monkeypatch) as calls:
        sample(guided(host.apply_prompt(model, prompt, 0.8)), steps=2)
    normed = prompt.adapter.spec.entry.normed_keys
    # each step: every block once, and once more in the pass that skips two of them
    whole, skipped = (6, 2) if normed else (3, 1)
    assert calls.total() == 2 * (2 * whole - skipped)


def test_easy_cache(model, prompt):
    from comfy_extras import nodes_easycache

    def cached(model):
        return nodes_easycache.EasyCacheNode.execute(model, 0.8, 0.15, 0.95, False)[0]

    alone, _ = require_company(cached, model, prompt, steps=8)
    assert not torch.equal(alone, sample(model, steps=8))  # it really left steps out
