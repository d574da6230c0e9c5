"""In bf16 an image prompt costs a transformer no precision: its error is that of the model alone."""

import pytest
import torch
from helpers.beside import has_hooks
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny, tiny_flux, tiny_sd3

SEEDS = 6
NOISE = 1.15  # the means over so few seeds differ by chance by a tenth
pytestmark = has_hooks
FAMILIES = {
    "Flux": (tiny_flux, lambda seed: tiny_flux.host_model(tiny_flux.flux_config(3, 3), seed=seed), 6, ()),
    "SD3.5": (tiny_sd3, lambda seed: tiny_sd3.host_model(4, seed=seed), 4, (9,)),
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_errors(family, seed):
    """Of the model in bf16 beside itself in fp32: alone, and with the prompt."""
    parts, make, pairs, grid = FAMILIES[family]
    adapter = host.HostAdapter(Checkpoint("x", **parts.instantx(pairs, seed=seed)))
    tokens = adapter.project(Features(randn(1, *grid, 48, seed=seed)))
    prompt = make_prompt(adapter, tokens, torch.zeros_like(tokens))
    outs = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = make(seed)
        model.model.diffusion_model.to(dtype)
        for prompted in (False, True):
            patched = host.apply_prompt(model, prompt, 0.7) if prompted else model
            outs[dtype, prompted] = forward(patched, parts, dtype, seed)
    return [
        float((outs[torch.bfloat16, prompted] - exact).norm() / exact.norm())
        for prompted in (False, True)
        for exact in (outs[torch.float32, prompted],)
    ]


def forward(model, parts, dtype, seed):
    x, context, pooled = (
        randn(1, *shape, seed=seed).to(dtype) for shape in ((16, 8, 12), (7, parts.CONTEXT), (parts.POOLED,))
    )
    flux = parts is tiny_flux
    more = {"guidance": torch.full((1,), 3.5)} if flux else {}
    time = torch.full((1,), 0.7 if flux else 700.0)
    told = {"cond_or_uncond": [0], "sigmas": torch.tensor([0.7])}
    return tiny.call_unet(model, x, time, context, told, y=pooled, **more).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_errs_no_more_with_a_prompt(family):
    alone, prompted = (
        sum(errors) for errors in zip(*(relative_errors(family, n) for n in range(SEEDS)), strict=True)
    )
    assert 1e-3 * SEEDS < alone < 5e-2 * SEEDS
    assert prompted <= alone * NOISE
