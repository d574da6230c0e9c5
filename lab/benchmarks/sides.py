"""Who is measured, on the same small UNet, weights and inputs: ours, the de-facto pack, diffusers.

The de-facto pack runs from the checkout that IPADAPTER_PLUS_PATH names; nothing of it is here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from support import parity, peer, tiny
from support.oracle import Oracle, for_batch
from torch import Tensor, nn

from ... import host
from ...ipadapter_core.checkpoint import Checkpoint
from ...ipadapter_core.spec import Variant
from .cases import Case
from .counting import SOURCES, tensors_in

# in the middle of every window
SIGMA = 1.0
# the de-facto pack's slot for the middle block, which the host never reads
UNREAD_MIDDLE_SLOT = ("middle", 1)
Forward = Callable[[], Any]


@dataclass(frozen=True)
class Rig:
    """One side, prepared. base, run: make a forward without and with the image prompts. sites: how many really run.

    held: what the adapter keeps on the device while it samples; called after a forward.
    """

    base: Callable[[], Forward]
    run: Callable[[], Forward]
    sites: int
    held: Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class Bench:
    """The UNet of a family in one dtype on both sides, with the same weights."""

    family: tiny.Family
    dtype: torch.dtype

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.family.unet)

    @cached_property
    def model(self) -> Any:
        model = tiny.host_model(self.family, self.oracle.host_state_dict())
        model.get_model_object("diffusion_model").to(self.dtype)
        return model

    def batch(self, case: Case) -> parity.Batch:
        batch = parity.make_batch(self.family, case.chunks, case.pictures)
        pooled = None if batch.pooled is None else batch.pooled.to(self.dtype)
        return replace(batch, x=batch.x.to(self.dtype), context=batch.context.to(self.dtype), pooled=pooled)


@lru_cache(maxsize=2)
def bench(family: str, dtype: torch.dtype) -> Bench:
    return Bench(tiny.FAMILIES[family], dtype)


@lru_cache(maxsize=1)
def encoder() -> Any:
    """257 tokens, as the released encoders give."""
    return peer.encoder(size=224, patch=14)


@lru_cache(maxsize=6)
def adapter(family: str, kind: str) -> dict[str, dict[str, Tensor]]:
    return peer.setup(family, kind).adapter


def image(number: int) -> Tensor:
    return tiny.picture(number, 64, 64)


def mask() -> Tensor:
    return torch.ones(1, 16, 16).tril()


def host_forward(model: Any, batch: parity.Batch) -> Forward:
    """A forward with the options that the host's sampler would set; sigmas are new at every step, as there."""
    times = torch.full((len(batch.x),), batch.timestep)
    y = {} if batch.y is None else {"y": batch.y.to(batch.x.dtype)}
    sigmas = [torch.full((len(batch.x),), SIGMA) for _ in range(8)]

    def forward() -> Tensor:
        options = {"cond_or_uncond": list(batch.chunks), "sigmas": sigmas.pop()}
        return tiny.call_unet(model, batch.x, times, batch.context, options, **y)

    return forward


def _slots(model: Any) -> dict[Any, Any]:
    return model.model_options["transformer_options"]["patches_replace"]["attn2"]


# --- ours ---


@lru_cache(maxsize=8)
def _prompt(family: str, kind: str, number: int) -> Any:
    loaded = host.HostAdapter(Checkpoint(f"{kind}.safetensors", **adapter(family, kind)), Variant(kind))
    return host.encode_prompt(loaded, encoder(), host.Reference(image(number)))


def ours(case: Case) -> Rig:
    at = bench(case.family, case.dtype)
    model = at.model
    for number in range(case.prompts):
        prompt = _prompt(case.family, case.kind, number)
        model = host.apply_prompt(model, prompt, 0.8, *case.window, mask=mask() if case.mask else None)
    batch = at.batch(case)
    return Rig(
        lambda: host_forward(at.model, batch),
        lambda: host_forward(model, batch),
        len(host.residuals_of(model)),
        lambda: cached_tensors(*host.residuals_of(model).values()),
    )


def cached_tensors(*of_sites: Any) -> Iterable[Tensor]:
    for residuals in of_sites:
        for residual in residuals:
            yield from tensors_in({k: v for k, v in vars(residual.site).items() if k not in SOURCES})


# --- the de-facto pack ---


def de_facto(case: Case) -> Rig:
    at = bench(case.family, case.dtype)
    model, tensors = at.model, adapter(case.family, case.kind)
    for number in range(case.prompts):
        model = peer.theirs(
            "IPAdapterAdvanced",
            model=model,
            ipadapter=tensors,
            clip_vision=encoder(),
            image=image(number),
            weight=0.8,
            start_at=case.window[0],
            end_at=case.window[1],
            attn_mask=mask() if case.mask else None,
        )[0]
    slots = _slots(model)
    _cast(slots.values(), case.dtype)
    batch = at.batch(case)
    return Rig(
        lambda: host_forward(at.model, batch),
        lambda: host_forward(model, batch),
        sum(key[:2] != UNREAD_MIDDLE_SLOT for key in slots),
        lambda: tensors_in([patch.kwargs for patch in slots.values()]),
    )


def _cast(patches: Iterable[Any], dtype: torch.dtype) -> None:
    """On a GPU it loads its adapter in the UNet's dtype; on a CPU always in fp32, which a half UNet does not take."""
    # all its patches share their tensors
    cast: dict[int, Tensor] = {}
    for kwargs in [kwargs for patch in patches for kwargs in patch.kwargs]:
        kwargs["ipadapter"].to(dtype)
        for name, tensor in kwargs.items():
            if isinstance(tensor, Tensor):
                kwargs[name] = cast.setdefault(id(tensor), tensor.to(dtype))


# --- diffusers ---


def diffusers(case: Case) -> Rig:
    """IPAdapterAttnProcessor2_0 in its own UNet; its base is that UNet with AttnProcessor2_0."""
    at = bench(case.family, case.dtype)
    oracle, batch = at.oracle, at.batch(case)
    embeds = [_features(case, batch, number) for number in range(case.prompts)]
    masks = {"ip_adapter_masks": [mask()[None].to(case.dtype)] * case.prompts} if case.mask else None

    def cast(unet: nn.Module) -> None:
        unet.to(case.dtype)

    def base() -> Forward:
        cast(oracle.load().unet)
        return _unet_forward(oracle, batch)

    def run() -> Forward:
        cast(oracle.load(*[adapter(case.family, case.kind)] * case.prompts, scale=0.8).unet)
        return _unet_forward(oracle, batch, embeds, masks)

    def held() -> Iterable[Tensor]:
        return tensors_in(oracle.image_attentions, oracle.unet.encoder_hid_proj, embeds)

    return Rig(base, run, at.family.sites, held)


def _unet_forward(
    oracle: Oracle, batch: parity.Batch, embeds: Sequence[Tensor] = (), masks: Any = None
) -> Forward:
    added: dict[str, Any] = {"image_embeds": list(embeds)} if embeds else {}
    if batch.pooled is not None:
        added |= {"text_embeds": batch.pooled, "time_ids": batch.time_ids}
    times = torch.full((), batch.timestep)
    return lambda: oracle.unet(
        batch.x,
        times,
        batch.context,
        added_cond_kwargs=added,
        cross_attention_kwargs=masks and dict(masks),
        return_dict=False,
    )


def _features(case: Case, batch: parity.Batch, number: int) -> Tensor:
    out = encoder().encode_image(image(number))
    features = out["image_embeds"] if case.kind == "base" else out["penultimate_hidden_states"]
    return for_batch(batch, features, torch.zeros_like(features)).to(case.dtype)


SIDES: dict[str, Callable[[Case], Rig]] = {"ours": ours, "de-facto pack": de_facto, "diffusers": diffusers}


def present() -> dict[str, Callable[[Case], Rig]]:
    """The sides that can run here."""
    absent = set() if os.environ.get(peer.VARIABLE) else {"de-facto pack"}
    return {name: side for name, side in SIDES.items() if name not in absent}
