"""The counted half for transformers: Flux and SD3.5, on the host's own models with their full number of blocks.

On a host without the hooks for transformers, our side is counted on the stand-in that speaks their protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import comfy.ldm.modules.attention as host_attention
import torch
from support import joint_transformer, tiny, tiny_flux, tiny_sd3, transformer
from torch import Tensor

from ... import host
from ...ipadapter_core.checkpoint import Checkpoint, role_names
from ...ipadapter_core.features import Features
from ...ipadapter_core.prompt import ImagePrompt, make_prompt
from .bars import READS, TRANSFORMER, Bar
from .cases import CHANGES, Case
from .counted import Row
from .counting import SOURCES, count, size_in_bytes, tensors_in
from .sides import SIGMA, Forward, Rig, mask

KINDS = (("Flux", "xlabs"), ("Flux", "instantx"), ("SD3.5", "instantx"))
SIZE, IMAGE_TOKENS = (8, 12), 9
_BLOCKS = {"Flux": tiny_flux.RELEASED, "SD3.5": (tiny_sd3.RELEASED,)}
HAS_HOOKS = hasattr(host_attention, "wrap_attn")


def hooks_in_place() -> AbstractContextManager[Any]:
    """What the stand-in needs of a host, while it runs."""
    if HAS_HOOKS:
        return nullcontext()
    return patch.dict(sys.modules, {"comfy.patcher_extension": transformer.hooks()})


def cases() -> Iterator[Case]:
    for family, kind in KINDS:
        for change, fields in CHANGES.items():
            yield replace(Case(family, kind), **fields, change=change)


def measure_all(todo: Iterable[Case]) -> Iterator[Row]:
    for case in todo:
        yield measure(case)


def measure(case: Case) -> Row:
    with hooks_in_place(), patch.object(host_attention, "wrap_attn", None, create=True):
        rig = ours(case)
        base = count(rig.base())
        patched = count(rig.run())
        return Row(case, "ours", rig.sites, patched.beyond(base), size_in_bytes(rig.held()))


def ours(case: Case) -> Rig:
    model = plain = _model(case.family, case.dtype)
    for number in range(case.prompts):
        prompt = _prompt(case, number)
        model = host.apply_prompt(model, prompt, 0.8, *case.window, mask=mask() if case.mask else None)
    residuals = [each for at_site in host.residuals_of(model).values() for each in at_site]
    return Rig(
        lambda: _forward(plain, case),
        lambda: _forward(model, case),
        len(host.residuals_of(model)),
        lambda: (tensor for each in residuals for tensor in _kept(each.site)),
    )


def _kept(residual: Any) -> Iterator[Tensor]:
    """What a residual holds on the device. Where K' and V' follow from the timestep, that is the adapter too."""
    pairs = getattr(residual, "pairs", None)
    if pairs is None:
        yield from tensors_in({key: value for key, value in vars(residual).items() if key not in SOURCES})
    else:
        of_steps = {
            key: value for key, value in vars(pairs).items() if key in ("_features", "_step", "_call")
        }
        yield from tensors_in(pairs.adapter.patcher.model, of_steps, residual.masks)


def _model(family: str, dtype: torch.dtype) -> Any:
    if not HAS_HOOKS:
        model = {"Flux": transformer.stand_in, "SD3.5": joint_transformer.stand_in}[family](*_BLOCKS[family])
    elif family == "Flux":
        model = tiny_flux.host_model(tiny_flux.flux_config(*_BLOCKS[family]))
    else:
        model = tiny_sd3.host_model(tiny_sd3.RELEASED)
    model.get_model_object("diffusion_model").to(dtype)
    return model


def _prompt(case: Case, number: int) -> ImagePrompt:
    adapter = _adapter(case.family, case.kind)
    shape = (IMAGE_TOKENS,) if case.family == "SD3.5" else ()
    generator = torch.Generator().manual_seed(number)
    seen = torch.randn(1, *shape, adapter.spec.feature_width, generator=generator)
    tokens = adapter.project(Features(torch.cat((seen, torch.zeros_like(seen)))))
    return make_prompt(adapter, tokens[:1], tokens[1:])


def _adapter(family: str, kind: str) -> host.HostAdapter:
    blocks = _BLOCKS[family]
    if family == "SD3.5":
        return host.HostAdapter(Checkpoint(kind, **tiny_sd3.instantx(*blocks)))
    if kind == "instantx":
        return host.HostAdapter(Checkpoint(kind, **tiny_flux.instantx(sum(blocks))))
    roles: tiny_sd3.Roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs(blocks[0])
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return host.HostAdapter(Checkpoint(kind, **roles))


def _forward(model: Any, case: Case) -> Forward:
    """A forward with the options that the host's sampler would set; sigmas are new at every step, as there."""
    generator = torch.Generator().manual_seed(3)
    rows = len(case.chunks) * case.pictures
    size = {"Flux": tiny_flux, "SD3.5": tiny_sd3}[case.family]
    shapes = ((rows, tiny_flux.CHANNELS, *SIZE), (rows, 7, size.CONTEXT), (rows, size.POOLED))
    x, context, pooled = (torch.randn(shape, generator=generator).to(case.dtype) for shape in shapes)
    times = torch.full((rows,), 0.7).to(case.dtype)
    more: dict[str, Tensor] = {"y": pooled} if HAS_HOOKS else {}
    if HAS_HOOKS and case.family == "Flux":
        more["guidance"] = torch.full((rows,), 3.5)
    sigmas = [torch.full((rows,), SIGMA / 2) for _ in range(8)]

    def forward() -> Tensor:
        told = {"cond_or_uncond": list(case.chunks), "sigmas": sigmas.pop()}
        return tiny.call_unet(model, x, times, context, told, **more)

    return forward


def bars(rows: Iterable[Row]) -> list[Bar]:
    """Operations that are no views at a site, of one prompt without mask; reads of a step."""
    found = list(rows)
    central = [row for row in found if row.case.change == "central"]
    made = [
        Bar(
            f"operations per site, not views, {row.case.family} {row.case.kind}", row.per_site[1], TRANSFORMER
        )
        for row in central
    ]
    reads = max((row.beyond.reads for row in found), default=0)
    return [*made, Bar("host reads per step of a transformer, at most", reads, READS)]
