"""One run of a sampler: who its conditionings are, how many pictures it has, which sigmas a part of it covers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ...ipadapter_core.attention import COND, UNCOND, Moment
from ...ipadapter_core.timing import SigmaWindow, Timing
from .calls import Call, Layout, StepClock, animation_frames, call_of_options, role_by_number
from .layout_cond import LAYOUT_COND, layout_cond, read_layout

RUN = "image_prompt_run"  # key of the run's transformer_options
# In names that guiders give their conditionings: negative, empty_negative_prompt, uncond. 'middle' is a positive one.
_NEGATIVE = ("neg", "uncond", "empty")
_log = logging.getLogger(__name__)


def role_by_name(name: str) -> int:
    return UNCOND if any(part in name.lower() for part in _NEGATIVE) else COND


class Run:
    """What a sampling run's calls have in common. Without a guider nothing is known but what a call itself says."""

    def __init__(self, guider: Any = None, noise: Tensor | None = None, model_options: Any = None):
        options = model_options or {}
        self.total = None if noise is None else noise.shape[0]
        self.size = None if noise is None else (noise.shape[-2], noise.shape[-1])
        self.compile_options: Mapping[str, Any] | None = options.get("torch_compile_kwargs")
        self.retained = tuple(getattr(options.get("context_handler"), "latent_retain_index_list", ()))
        self.clock = StepClock()
        self.built: dict[Any, Any] = {}  # what carriers made for this run
        self._windows: dict[int, tuple[Any, dict[Timing, SigmaWindow]]] = {}
        self._warned = False
        conds = getattr(guider, "conds", None) or {}
        self.roles = _name_roles(conds)
        if noise is not None and noise.ndim == 4:
            _add_layout_conds(conds, noise)

    def windows(self, model_sampling: Any, timings: Iterable[Timing]) -> Mapping[Timing, SigmaWindow]:
        """In this model's sigmas, worked out once."""
        _, known = self._windows.setdefault(id(model_sampling), (model_sampling, {}))
        for timing in timings:
            if timing not in known:
                known[timing] = timing.window(model_sampling.percent_to_sigma)
        return known

    def call(
        self,
        x: Tensor,
        options: Mapping[str, Any],
        planes: Tensor | None,
        windows: Mapping[Timing, SigmaWindow],
        moment: Moment | None = None,
    ) -> Call:
        rows = x.shape[0]
        plain = call_of_options(options, rows, self.clock)
        known = None if planes is None or self.size is None else read_layout(planes, rows, self.size)
        layout = known or self._layout_by_uuid(plain.numbers, options)
        frames = animation_frames(options, self.retained) or layout.frames
        if frames == tuple(range(self.total or 0)):
            frames = None
        layout = Layout(layout.roles, layout.crops, frames)
        latent = (x.shape[-2], x.shape[-1])
        return Call(
            plain.numbers, rows, layout, plain.sigmas, self.total, windows, self.clock, latent, given=moment
        )

    def _layout_by_uuid(self, numbers: tuple[int, ...], options: Mapping[str, Any]) -> Layout:
        names = options.get("uuids") or ()
        if len(names) != len(numbers):
            return Layout(tuple(role_by_number(number) for number in numbers))
        return Layout(
            tuple(
                self.roles.get(name, role_by_number(number))
                for name, number in zip(names, numbers, strict=True)
            )
        )

    def warn_of_unknown_crop(self, x: Tensor, call: Call) -> None:
        """Once, where a mask is laid on a part of the picture of which nobody says which part it is."""
        if self._warned or self.size is None or call.layout.crops is not None:
            return
        if tuple(x.shape[-2:]) != self.size:
            self._warned = True
            _log.warning(
                "Image Prompt: another node calls the model with parts of the picture of %d x %d latents and does not say "
                "which parts. The whole mask is laid on each of them.",
                x.shape[-1],
                x.shape[-2],
            )


def _name_roles(conds: Mapping[str, Any]) -> dict[Any, int]:
    """Role by the uuid of each conditioning.

    Where a positive one has an area the host copies it, uuid and all, among the negative ones: the copy gets its own.
    """
    roles: dict[Any, int] = {}
    for name, listed in conds.items():
        for cond in listed or ():
            if cond.get("uuid") in roles:
                cond["uuid"] = uuid.uuid4()
            roles[cond.get("uuid")] = role_by_name(name)
    return roles


def _add_layout_conds(conds: Mapping[str, Any], noise: Tensor) -> None:
    pictures, (height, width) = noise.shape[0], noise.shape[-2:]
    made = {role: layout_cond(pictures, height, width, role) for role in (COND, UNCOND)}
    for name, listed in conds.items():
        for cond in listed or ():
            cond["model_conds"] = {**cond.get("model_conds", {}), LAYOUT_COND: made[role_by_name(name)]}
