"""Image prompts of the adapter and encoder that loaders of the transformers' packs give together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import host
from ...host import folders
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.features import Features
from ...ipadapter_core.prompt import ImagePrompt, make_prompt
from ...ipadapter_core.spec import Feature
from .values import adapter_of, clip_vision_of


def _parts(value: Any) -> tuple[host.HostAdapter, Any]:
    return adapter_of(value), clip_vision_of(value)


def encoded(value: Any, image: Tensor) -> ImagePrompt:
    adapter, encoder = _parts(value)
    with folders.suggest_encoder(adapter.spec):
        return host.encode_prompt(adapter, encoder, host.Reference(image))


def encoded_mean(value: Any, image: Tensor) -> ImagePrompt:
    adapter, encoder = _parts(value)
    with folders.suggest_encoder(adapter.spec):
        seen = host.encode_images(encoder, adapter.spec, host.Reference(image)).mean(0, keepdim=True)
        nothing = host.unconditional_features(encoder, adapter.spec)
    cond, uncond = adapter.project(Features(torch.cat((seen, nothing)))).split(1)
    return make_prompt(adapter, cond, uncond)


def encoded_output(value: Any, output: Any) -> ImagePrompt:
    """Of what CLIPVisionEncode gives, with zeros in the place of no image."""
    adapter = adapter_of(value)
    spec = adapter.spec
    seen: Tensor = output["penultimate_hidden_states"].float()
    if spec.feature is not Feature.PENULTIMATE or seen.ndim != 3 or seen.shape[-1] != spec.feature_width:
        raise MismatchError(
            f"image_embed of shape {tuple(seen.shape)} came, but {adapter.name} reads {spec.feature.value} of width "
            f"{spec.feature_width} ({spec.encoder}). Connect CLIPVisionEncode with that encoder."
        )
    tokens = adapter.project(Features(torch.cat((seen, torch.zeros_like(seen[:1])))))
    return make_prompt(adapter, tokens[:-1], tokens[-1:])
