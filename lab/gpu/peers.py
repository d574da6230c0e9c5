"""The older pack and diffusers on the same sizes, where they were carried along."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from support import tiny
from torch import Tensor

from .subjects import ENCODER_TOKENS, Subject

Made = dict[str, Callable[[], Any]]


def peer_steps(subject: Subject) -> Iterator[tuple[str, Made | str]]:
    """Each peer with its steps, or with why it has none."""
    for side, needs, make in (
        ("older pack", _lacks_older_pack, _older_pack),
        ("diffusers", _lacks_diffusers, _diffusers),
    ):
        if subject.family == "Flux":
            yield side, "not measured: no peer's code for this layout of the model"
        elif why := needs():
            yield side, why
        else:
            try:
                yield side, make(subject)
            # whatever a peer's code meets on this machine is a line of the table
            except Exception as error:
                yield side, f"failed: {type(error).__name__}: {error}"[:300]


def _lacks_diffusers() -> str:
    return "" if importlib.util.find_spec("diffusers") else "not carried: diffusers is not installed here"


def _lacks_older_pack() -> str:
    if not os.environ.get("IPADAPTER_PLUS_PATH"):
        return "not carried: IPADAPTER_PLUS_PATH names no checkout"
    return _lacks_diffusers()  # what loads it compares with diffusers elsewhere


def _older_pack(subject: Subject) -> Made:
    """IPAdapterAdvanced in the same model."""
    peer, encoder = importlib.import_module("support.peer"), _encoder(subject)
    made: Made = {}
    for count in (1, 4):
        model = subject.model
        for number in range(count):
            model = peer.theirs(
                "IPAdapterAdvanced",
                model=model,
                ipadapter=subject.tensors(subject.rich),
                clip_vision=encoder,
                image=tiny.picture(number, 224, 224),
                weight=0.8,
            )[0]
        made[f"{count} {subject.rich}"] = subject.forward(model)
    return made


def _encoder(subject: Subject) -> Any:
    """A CLIP vision model of the host whose features have the width and number of the released encoder's, of few layers."""
    width = subject.adapter(subject.rich).spec.feature_width
    return tiny.clip_vision(width=width, layers=2, projection=64, size=224, patch=14)


def _diffusers(subject: Subject) -> Made:
    """IPAdapterAttnProcessor2_0 in its own UNet of the same sizes, without and with image prompts."""
    oracle, mixin = (
        importlib.import_module(name) for name in ("support.oracle", "diffusers.loaders.ip_adapter")
    )
    place, rows = subject.place, len(subject.chunks)
    unet = oracle.build_unet(subject.unet.unet, place.device).to(place.dtype).requires_grad_(False)
    tiny.random_(unet.state_dict())
    given = subject.inputs
    added: dict[str, Any] = {}
    if subject.unet.adm:
        added = {
            "text_embeds": given["y"][:, :1280],
            "time_ids": torch.zeros(rows, 6, device=place.device, dtype=place.dtype),
        }
    made = {"none": _step(unet, given, added)}
    for count in (1, 4):
        own = copy.deepcopy(unet)
        own._load_ip_adapter_weights([dict(subject.tensors(subject.rich))] * count, low_cpu_mem_usage=True)
        own.to(place.device, place.dtype)
        holder: Any = SimpleNamespace(unet=own)
        mixin.IPAdapterMixin.set_ip_adapter_scale(holder, [0.8] * count)
        width = subject.adapter(subject.rich).spec.feature_width
        seen = torch.randn(1, 1, ENCODER_TOKENS, width, device=place.device, dtype=place.dtype)
        embeds = [seen.expand(rows, -1, -1, -1)] * count
        made[f"{count} {subject.rich}"] = _step(own, given, {**added, "image_embeds": embeds})
    return made


def _step(unet: Any, given: dict[str, Tensor], added: dict[str, Any]) -> Callable[[], Any]:
    time = torch.tensor(500.0, device=given["x"].device)

    def step() -> Any:
        with torch.inference_mode():
            return unet(given["x"], time, given["context"], added_cond_kwargs=dict(added), return_dict=False)

    return step
