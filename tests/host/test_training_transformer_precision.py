"""Gradients through transformers in half precision beside those in fp32, on the host's own networks and on stand-ins."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from helpers.transformer_training import (
    TinyOpenBase,
    TinyTransformerBase,
    config_of,
    install_hooks,
    stand_in,
    trainer,
)
from image_prompt.ipadapter_core.training.precision import DTYPES
from support import parity, tiny_flux, tiny_open, tiny_sd3

HOOKS = hasattr(host_attention, "wrap_attn")
MODELS = {
    "Flux": lambda: tiny_flux.host_model(tiny_flux.flux_config()),
    "SD3.5": tiny_sd3.host_model,
    "qwen": lambda: tiny_open.KINDS["qwen"].make(),
    "z-image": lambda: tiny_open.KINDS["z-image"].make(),
}
CASES = [
    ("Flux", "xlabs"), ("Flux", "instantx"), ("SD3.5", "instantx"),
    ("qwen", "base"), ("qwen", "plus"), ("z-image", "base"), ("z-image", "plus"),
]  # fmt: skip
# of the weights as a host loads them, and what is asked for
PAIRS = [
    ("bf16", "no"),
    ("bf16", "bf16"),
    ("fp32", "bf16"),
    ("fp16", "no"),
    ("fp16", "bf16"),
    ("fp32", "fp16"),
]


def gradients(family, kind, weights, asked, folder):
    """Of one step: of projection, and of K' and V'."""
    model = MODELS[family]() if HOOKS else stand_in(family)
    model.model.diffusion_model.to(DTYPES[weights]).dtype = DTYPES[weights]
    make = TinyOpenBase if family in tiny_open.KINDS else TinyTransformerBase
    drop = dict.fromkeys(("drop_text", "drop_image", "drop_both"), 0.0)
    config = config_of(kind, steps=1, precision=asked, seed=3, batch_size=4, **drop)
    made = trainer(config, make(model, parity.lively_encoder()), folder)
    for parameter in made.trainable.parameters():  # XLabs' start of zeros would leave most gradients at 0
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    made.base.compute_in(config)
    made.base.load(False)
    made._loss(0).backward()
    parts = made.trainable.adapter.image_proj, made.trainable.adapter.ip_adapter
    return [torch.cat([p.grad.flatten().double() for p in part.parameters()]) for part in parts]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_gradients_agree_with_full_precision(family, kind, tmp_path, monkeypatch):
    if HOOKS and family == "z-image" and not tiny_open.numbers_blocks():
        pytest.skip("this host does not say which block runs")
    install_hooks(monkeypatch)
    exact = gradients(family, kind, "fp32", "no", tmp_path)
    for weights, asked in PAIRS:
        got = gradients(family, kind, weights, asked, tmp_path)
        cosines = [torch.cosine_similarity(ours, one, 0).item() for ours, one in zip(got, exact, strict=True)]
        norms = [(ours.norm() / one.norm()).item() for ours, one in zip(got, exact, strict=True)]
        said = f"{family} {kind}, weights {weights}, precision {asked}: cosines {cosines}, norms {norms}"
        print(said)
        assert min(cosines) > 0.999, said
        assert norms == pytest.approx([1, 1], abs=0.02), said
