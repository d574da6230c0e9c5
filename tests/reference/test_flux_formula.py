"""XLabs' arithmetic beside diffusers' own attention and projection, InstantX's as its authors wrote it: on every host."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import ImageProjection
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxIPAdapterAttnProcessor
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.attention import SiteResidual, normed_by_head
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.features import Features
from support import tiny_flux

LIMIT = 2e-5
HEADS, PICTURE, TEXT = 2, 12, 5


def adapter_of(roles):
    file = Checkpoint("random", **roles)
    return Adapter(file).load_checkpoint(file)


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, -0.4])
def test_xlabs_is_what_diffusers_processor_adds_to_the_image_stream(scale):
    tensors, roles = tiny_flux.xlabs(2, seed=3), {"image_proj": {}, "ip_adapter": {}}
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    adapter = adapter_of(roles)
    width, context = adapter.spec.site_widths[1], adapter.spec.context_width
    embeds = random(1, adapter.spec.feature_width, seed=4)
    theirs_proj = ImageProjection(adapter.spec.feature_width, context, adapter.spec.tokens)
    theirs_proj.load_state_dict(
        {
            "image_embeds.weight": adapter.image_proj.proj.weight,
            "image_embeds.bias": adapter.image_proj.proj.bias,
            "norm.weight": adapter.image_proj.norm.weight,
            "norm.bias": adapter.image_proj.norm.bias,
        }
    )
    tokens = adapter.project(Features(embeds))
    assert (tokens - theirs_proj(embeds)).abs().max() <= LIMIT

    processor = FluxIPAdapterAttnProcessor(width, context, num_tokens=(adapter.spec.tokens,), scale=[scale])
    pair = adapter.ip_adapter["1"]
    for theirs, ours in ((processor.to_k_ip[0], pair.to_k_ip), (processor.to_v_ip[0], pair.to_v_ip)):
        theirs.load_state_dict(ours.state_dict())
    attention = FluxAttention(
        width, HEADS, width // HEADS, added_kv_proj_dim=width, bias=True, processor=processor
    ).requires_grad_(False)
    image, text = random(1, PICTURE, width, seed=5), random(1, TEXT, width, seed=6)
    *_, added = processor(attention, image, text, ip_hidden_states=[tokens])

    q = attention.norm_q(attention.to_q(image).unflatten(-1, (HEADS, -1))).flatten(-2)
    keys, values = adapter.keys_values(tokens)[1]
    got = SiteResidual(keys, values, 1, scale).add_to(torch.zeros_like(q), q, HEADS, (0,), None)
    assert added.abs().max() > 100 * LIMIT
    assert (got - added).abs().max() <= LIMIT


def test_instantx_norms_its_keys_in_each_head_and_not_its_values():
    adapter = adapter_of(tiny_flux.instantx(4, seed=3))
    assert adapter.spec.entry.normed_keys
    width = adapter.spec.site_widths[0]
    tokens = adapter.project(Features(random(1, adapter.spec.feature_width, seed=4)))
    pair, q = adapter.ip_adapter["0"], random(1, TEXT + PICTURE, width, seed=5)

    def heads(x):
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    k, v = heads(F.linear(tokens, pair.to_k_ip.weight)), heads(F.linear(tokens, pair.to_v_ip.weight))
    k = k * torch.rsqrt(k.pow(2).mean(-1, keepdim=True) + 1e-5)
    expected = torch.softmax(heads(q) @ k.mT / k.shape[-1] ** 0.5, -1) @ v
    keys, values = adapter.keys_values(tokens)[0]
    residual = SiteResidual(normed_by_head(keys, HEADS), values, 1, 1.0)
    got = residual.add_to(torch.zeros_like(q), q, HEADS, (0,), None)
    assert (got - expected.transpose(1, 2).flatten(2)).abs().max() <= LIMIT
