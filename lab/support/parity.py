"""Our side of the parity tests: one batch for both UNets, our nodes called as the host calls them, errors measured."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import comfy.model_management as mm
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny
from support.oracle import Oracle, ReferenceEncoder, for_batch, lively_
from torch import Tensor

LIMIT = 2e-5  # fp32; the smallest defect that was ever measured, a middle block left out, is 4.8e-2
KINDS = ("base", "plus", "full")
log = logging.getLogger("parity")


def max_error(ours: Tensor, theirs: Tensor, what: str) -> float:
    """Largest absolute difference, logged with the size of the values (pytest --log-cli-level=INFO shows it)."""
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs().max().item()
    log.info("%s: max error %.1e, largest value %.2f", what, error, theirs.abs().max().item())
    return error


def mean_error(ours: Tensor, theirs: Tensor) -> float:
    """Mean absolute difference."""
    return (ours - theirs).abs().mean().item()


def relative_error(ours: Tensor, theirs: Tensor, what: str) -> float:
    """Largest absolute difference over the largest value."""
    return max_error(ours, theirs, what) / theirs.abs().max().item()


@dataclass(frozen=True)
class Batch:
    """One UNet call: x (B, 4, h, w), context (B, t, d), for SDXL pooled (B, 1280) and time_ids (B, 6)."""

    chunks: tuple[int, ...]
    x: Tensor
    timestep: float
    context: Tensor
    pooled: Tensor | None
    time_ids: Tensor | None

    @property
    def y(self) -> Tensor | None:
        """SDXL's pooled conditioning as the host's encode_adm lays it out."""
        if self.pooled is None or self.time_ids is None:
            return None
        sizes = Timestep(256)(self.time_ids.flatten()).reshape(len(self.x), -1)
        return torch.cat((self.pooled, sizes), dim=1)


def with_tokens(batch: Batch, tokens: Tensor) -> Batch:
    """The batch with image tokens (B, t, d) behind its text tokens, as the published processors read them."""
    return replace(batch, context=torch.cat((batch.context, tokens), dim=1))


def make_batch(
    family: tiny.Family,
    chunks: tuple[int, ...] = (1, 0),
    pictures: int = 1,
    size: tuple[int, int] = (16, 16),
    seed: int = 3,
) -> Batch:
    """Random inputs; every row has its own, so that a mixed-up row shows."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(chunks) * pictures
    x = torch.randn(rows, 4, *size, generator=generator)
    context = torch.randn(rows, 7, family.context, generator=generator)
    if not family.adm:
        return Batch(chunks, x, 500.0, context, None, None)
    pooled = torch.randn(rows, 1280, generator=generator)
    time_ids = torch.tensor([[8.0 * size[0], 8.0 * size[1], 16, 32, 1024, 768]]).expand(rows, -1)
    return Batch(chunks, x, 500.0, context, pooled, time_ids)


def run_host(model: Any, batch: Batch) -> Tensor:
    """One forward of the (patched) host model, with the options that its sampler would set."""
    told = {"cond_or_uncond": list(batch.chunks), "sigmas": torch.ones(len(batch.x))}
    extra = {} if batch.y is None else {"y": batch.y}
    times = torch.full((len(batch.x),), batch.timestep)
    return tiny.call_unet(model, batch.x, times, batch.context, told, **extra)


def run_loaded(model: Any, batch: Batch) -> Tensor:
    """`run_host` with the model's weight patches (LoRA) on, as the sampler loads it; taken off again."""
    mm.load_models_gpu([model])
    try:
        return run_host(model, batch)
    finally:
        mm.unload_all_models()


@dataclass(frozen=True)
class AdapterPair:
    """One random adapter: the tensors that diffusers loads, and what our loader makes of them."""

    kind: str
    tensors: dict[str, dict[str, Tensor]]

    @cached_property
    def ours(self) -> host.HostAdapter:
        return host.HostAdapter(Checkpoint(f"{self.kind}.safetensors", **self.tensors), Variant(self.kind))


@lru_cache(maxsize=12)
def adapter_pair(kind: str, family_name: str, seed: int = 31, lora_rank: int = 0) -> AdapterPair:
    tensors = tiny.adapter_tensors(kind, tiny.FAMILIES[family_name], lora_rank=lora_rank)
    lively_(tensors["image_proj"], seed)
    lively_(tensors["ip_adapter"], seed + 1)
    return AdapterPair(kind, tensors)


class Twins:
    """The same random network on both sides: `model` the host's, `oracle` diffusers', and the two image encoders."""

    def __init__(self, family: tiny.Family):
        self.family = family
        self.oracle = Oracle(family.unet)
        self.model = tiny.host_model(family, self.oracle.host_state_dict())
        self.encoder = lively_encoder()
        self.reference_encoder = ReferenceEncoder(self.encoder)

    def adapter(self, kind: str, seed: int = 31, lora_rank: int = 0) -> AdapterPair:
        return adapter_pair(kind, self.family.name, seed, lora_rank)

    def embeds(self, kind: str, batch: Batch, images: Tensor, negative: Tensor | None = None) -> Tensor:
        """The oracle's features of pictures and of their negatives, for this batch: (B, n, ...)."""
        reference = self.reference_encoder
        against = reference.nothing(kind) if negative is None else reference.images(kind, negative)
        return for_batch(batch, reference.images(kind, images), against)

    def encode(self, adapter: AdapterPair, images: Tensor, **options: Any) -> Any:
        """ImagePromptEncode of these pictures."""
        return call("ImagePromptEncode", adapter.ours, self.encoder, images, **options)

    def apply(self, prompt: Any, weight: float = 1.0, model: Any = None, **options: Any) -> Any:
        """ImagePromptApply on this or the plain model."""
        return call("ImagePromptApply", model or self.model, prompt, weight, **options)


@lru_cache(maxsize=2)
def twins(family_name: str) -> Twins:
    """Built once in a test run: the SDXL layout takes seconds."""
    return Twins(tiny.FAMILIES[family_name])


@lru_cache(maxsize=1)
def lively_encoder(seed: int = 41, **shape: int) -> Any:
    """`tiny.clip_vision` of that shape with norms and biases that are not trivial."""
    encoder = tiny.clip_vision(**shape)
    weights = {k: v.float().clone() for k, v in encoder.get_sd().items() if v.is_floating_point()}
    lively_(weights, seed)
    encoder.load_sd(weights)
    return encoder


def call(node_id: str, *inputs: Any, **named: Any) -> Any:
    """First output of one of our nodes, called through its FUNCTION as the host does."""
    node = NODE_CLASS_MAPPINGS[node_id]()
    out = getattr(node, node.FUNCTION)(*inputs, **named)
    return (out["result"] if isinstance(out, dict) else out)[0]
