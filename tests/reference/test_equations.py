"""The paper's equations where they have an exact consequence, at every site of the real UNet."""

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.families.table import model_sites
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny
from support.parity import make_batch, max_error, run_host

LIMIT = 2e-6  # one attention, not a whole UNet


def text_adapter(twins) -> host.HostAdapter:
    """An adapter whose W'k, W'v are the UNet's own Wk, Wv: how training starts (section 3.2.2)."""
    unet = twins.model.get_model_object("diffusion_model")
    attentions = {
        name.removesuffix(".attn2"): module for name, module in unet.named_modules() if name.endswith("attn2")
    }
    matrices = {}
    for number, site in enumerate(model_sites(unet)):
        attention = attentions[site.path]
        matrices[f"{2 * number + 1}.to_k_ip.weight"] = attention.to_k.weight.detach()
        matrices[f"{2 * number + 1}.to_v_ip.weight"] = attention.to_v.weight.detach()
    return host.HostAdapter(Checkpoint("text", tiny.image_proj("base", 48, twins.family.context), matrices))


@pytest.fixture
def passed(monkeypatch):
    """(text attention, what our patch made of it) of every site that ran."""
    seen, call = [], host.SitePatch.__call__

    def watched(self, q, k, v, extra_options):
        out = call(self, q, k, v, extra_options)
        seen.append((host.text_attention(q, k, v, extra_options), out))
        return out

    monkeypatch.setattr(host.SitePatch, "__call__", watched)
    return seen


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_equation_8_with_the_text_as_image_scales_the_text_attention(twins, weight, passed):
    """W'k = Wk, W'v = Wv and c_i = c_t: Attn(Q, K, V) + λ Attn(Q, K', V') = (1 + λ) Attn(Q, K, V); λ 1 is eq. (5)."""
    batch = make_batch(twins.family)  # uncond first
    prompt = make_prompt(text_adapter(twins), cond=batch.context[1:], uncond=batch.context[:1])

    run_host(twins.apply(prompt, weight), batch)

    assert len(passed) == twins.family.sites
    text, decoupled = (torch.cat([t.flatten() for t in side]) for side in zip(*passed, strict=True))
    assert max_error(decoupled, (1 + weight) * text, f"(1 + {weight}) text {twins.family.name}") <= LIMIT
