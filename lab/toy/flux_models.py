"""The toy transformer as ComfyUI's own MODEL, and pictures from it.

Hosts before 0.3.64 have no hooks for transformers, and image prompts cannot enter their Flux: there a stand-in with the same
weights takes the same calls, and `hooked` gives the host what host/attach asks for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import comfy.latent_formats
import comfy.ldm.modules.attention as host_attention
import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from support import tiny_flux, transformer
from support.tiny import CPU
from torch import Tensor

from . import models as toy
from . import networks
from .config import FLUX, WEIGHTS
from .text import pooled, tokenize

host_nodes: Any = importlib.import_module("nodes")  # the host's

ADAPTER_PATH = WEIGHTS / networks.FILES["flux-adapter"]
# with a guidance of 3 likeness is as high from a weight of 0.75 on (docs/training.md)
STEPS, CFG, SAMPLER, SCHEDULER = 20, 2.0, "euler", "simple"
HAS_HOOKS = hasattr(host_attention, "wrap_attn")


def load_model(folder: Path = WEIGHTS) -> Any:
    """The transformer as a MODEL that image prompts can enter, fp32 on the CPU."""
    return host_model(folder) if HAS_HOOKS else stand_in(folder)


def host_model(folder: Path = WEIGHTS) -> Any:
    """In the host's own Flux class."""
    model = tiny_flux.host_model(FLUX.host(), toy.weights(networks.FILES["flux"], folder))
    model.model.latent_format = comfy.latent_formats.SD15()
    return model


def stand_in(folder: Path = WEIGHTS) -> transformer.Patcher:
    """In this laboratory's class."""
    return transformer.Patcher(_stand_ins_base(folder))


def model_to_train_on(folder: Path = WEIGHTS) -> Any:
    """As TransformerBase takes it, which puts its patches into each call itself."""
    if HAS_HOOKS:
        return host_model(folder)
    return _WithWrappers(_stand_ins_base(folder), load_device=CPU, offload_device=CPU)


class _WithWrappers(comfy.model_patcher.ModelPatcher):
    """As the ModelPatcher of hosts with hooks, as far as training asks for them."""

    def add_wrapper_with_key(self, *_: Any) -> None: ...


def _stand_ins_base(folder: Path) -> Any:
    """The host's BaseModel around our own network."""
    config: Any = comfy.supported_models.Flux({**FLUX.host(), "disable_unet_model_creation": True})
    config.unet_config["dtype"] = torch.float32
    config.latent_format = comfy.latent_formats.SD15()
    base: Any = comfy.model_base.Flux(config, device=CPU)
    base.diffusion_model = networks.load_flux(folder)
    return base.requires_grad_(False).eval()


@contextmanager
def hooked() -> Iterator[None]:
    """While it lasts, a host without hooks for transformers has those that host/attach asks for."""
    plain = host_attention.attention_pytorch
    with ExitStack() as stack:
        if not HAS_HOOKS:
            without = patch.object(
                host_attention, "attention_pytorch", lambda *a, transformer_options=None, **o: plain(*a, **o)
            )
            module = patch.dict(sys.modules, {"comfy.patcher_extension": transformer.hooks()})  # type: ignore
            for each in (without, module, patch.object(host_attention, "wrap_attn", None, create=True)):
                stack.enter_context(each)
        yield


def encode_text(caption: str, folder: Path = WEIGHTS) -> toy.Conditioning:
    """As models.encode_text: CONDITIONING with context (1, 5, 64) and pooled text (1, 64)."""
    words = toy.load_text(folder)(tokenize(caption)[None])
    return [[words, {"pooled_output": pooled(words)}]]


@torch.inference_mode()
def sample(model: Any, caption: str, latent: Tensor, seed: int) -> Tensor:
    """Latents of as many pictures as the empty `latent` (n, 4, h, w) has, by the host's KSampler or as it makes them."""
    texts = {"positive": encode_text(caption), "negative": encode_text("")}
    if not isinstance(model, transformer.Patcher):
        settings = (seed, STEPS, CFG, SAMPLER, SCHEDULER)
        return host_nodes.KSampler().sample(model, *settings, *texts.values(), {"samples": latent})[0][
            "samples"
        ]
    base: Any = model.model
    sigmas = comfy.samplers.simple_scheduler(base.model_sampling, STEPS)
    given = {name: {"context": words, "y": more["pooled_output"]} for name, [[words, more]] in texts.items()}
    noise = comfy.sample.prepare_noise(latent, seed)
    return base.process_latent_out(transformer.denoised(model, noise, sigmas, CFG, given))
