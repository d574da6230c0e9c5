"""What image prompts add while a model samples, recorded for heat maps. Nothing of it runs without the node that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ...ipadapter_core.attention import COND, Observer
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.heatmap import HeatSums, Place, base_norms, picked, share_beside
from ...ipadapter_core.masking import Crop
from ...ipadapter_core.rows import picture_numbers
from ...ipadapter_core.timing import Timing
from .calls import Call, Layout

WATCH = "image_prompt_watch"  # key of the host's transformer_options
_RUNS = 8  # of different samplers that one watch remembers


@dataclass(frozen=True, eq=False)
class Applied:
    """One image prompt as it was applied. name: of its adapter. sites: how many of the model's it acts at.

    node: that applied it, for errors, as 'title #id'; '' where that is not known.
    """

    name: str
    sites: int
    node: str = ""


class Watched(Protocol):
    """A residual. number: of its site among those at which `applied` acts."""

    timing: Timing | None
    applied: Applied
    number: int


@dataclass(eq=False)
class Recording:
    """One run of a sampler. full: (H, W) of its latent. samples: what came out, where the host says so."""

    maps: dict[Applied, HeatSums] = field(default_factory=dict[Applied, HeatSums])
    full: tuple[int, int] = (0, 0)
    pictures: int = 0
    samples: Tensor | None = None
    calls: int = 0

    def heat(self) -> list[tuple[Applied, Tensor]]:
        """(pictures, H, W) for each image prompt, in the order in which they were applied."""
        return [(applied, sums.mean(self.pictures, self.full)) for applied, sums in self.maps.items()]

    def gave(self, samples: Tensor) -> bool:
        """Whether a LATENT is what this run gave, in whatever type of numbers the host keeps it."""
        own = self.samples
        return own is not None and own.shape == samples.shape and torch.equal(own.to(samples), samples)

    def finish(self, samples: Any) -> None:
        self.maps = {applied: sums.to_cpu() for applied, sums in self.maps.items()}
        self.samples = samples.detach().float().cpu() if isinstance(samples, Tensor) else None


class Watch:
    """What a Watch node gives: the recordings of the runs of the model beside it.

    sites: how many of a prompt's sites are watched; 0 for all. sampler: names the node that runs at this moment.
    """

    def __init__(self, sites: int, sampler: Callable[[], str]):
        self.sites, self._sampler = sites, sampler
        self.runs: dict[str, Recording] = {}  # by the sampler's node, the newest last
        self._current: Recording | None = None
        self._sigmas = (0.0, 0.0)  # where no wrapper tells of runs: the first and the last of the current one

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        return self

    def sample(self, executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE wrapper: one run."""
        outer, self._current = self._current, Recording()
        try:
            out = executor(*args, **kwargs)
            self._current.finish(out)
            self._keep(self._current)
        finally:
            self._current = outer
        return out

    def wants(self, residual: Watched) -> bool:
        return picked(residual.number, residual.applied.sites, self.sites)

    def _keep(self, run: Recording) -> None:
        name = self._sampler()
        self.runs.pop(name, None)
        while len(self.runs) >= _RUNS:
            self.runs.pop(next(iter(self.runs)))
        self.runs[name] = run

    def recording(self, call: Call) -> Recording:
        """The current run's. Hosts without wrappers tell of none: there sigma begins anew."""
        if self._current is not None:
            return self._current
        sigma = 0.0 if call.sigmas is None else call.clock.read(call.sigmas)
        first, last = self._sigmas
        if not self.runs or (sigma >= first and last < first):
            first = sigma
            self._keep(Recording())
        self._sigmas = first, sigma
        return next(reversed(self.runs.values()))


@dataclass(frozen=True, eq=False)
class SiteWatch:
    """One site in one call. base: norms of what attention gave there, by block of the positive's rows."""

    watch: Watch
    run: Recording
    base: Mapping[int, Tensor]
    places: Mapping[int, Place]
    rows: int
    tokens: slice

    def observer(self, residuals: Sequence[Watched]) -> Observer | None:
        """Of what these residuals add, one alone or a stack of them; None where none is watched."""
        found = {number: each for number, each in enumerate(residuals) if self.watch.wants(each)}
        if not found:
            return None
        sums = {number: self.run.maps.setdefault(each.applied, HeatSums()) for number, each in found.items()}
        return partial(self._observe, sums[0]) if len(residuals) == 1 else partial(self._observe_each, sums)

    def _observe_each(
        self, sums: Mapping[int, HeatSums], added: Tensor, weights: Tensor | None, factor: float
    ) -> None:
        for number, of in sums.items():
            self._observe(of, added[number], None if weights is None else weights[number], factor)

    def _observe(self, sums: HeatSums, addition: Tensor, weights: Tensor | None, factor: float) -> None:
        for block, place in self.places.items():
            rows = slice(block * self.rows, (block + 1) * self.rows)
            of = None if weights is None else _part(weights, rows, self.tokens)
            part = addition[rows, self.tokens].detach()
            sums.add(place, share_beside(part, self.base[block], of), factor)


def _part(weights: Tensor, rows: slice, tokens: slice) -> Tensor:
    """Of weights (1 or B, 1 or N, 1)."""
    part = weights if weights.shape[0] == 1 else weights[rows]
    return part if part.shape[1] == 1 else part[:, tokens]


def watch_site(
    options: Mapping[str, Any],
    call: Call,
    layout: Layout,
    out: Tensor,
    size: Callable[[], tuple[int, ...]],
    residuals: Sequence[Watched],
) -> SiteWatch | None:
    """None without a watch, or where it watches none of these residuals in this call.

    size: (h, w) of the queries, and how many are in front of the picture's. Raises MismatchError where nobody says which
    rows are which picture.
    """
    watch: Watch | None = options.get(WATCH)
    if watch is None or not any(watch.wants(each) and call.factor(each.timing) for each in residuals):
        return None
    height, width, front = (*size(), 0)[:3]
    tokens = slice(front, front + height * width)
    rows = out.shape[0] // len(layout.roles)
    latent = call.latent or tuple(options["original_shape"][-2:])
    places = _places(call, layout, rows, (height, width), (latent[0], latent[1]))
    run = watch.recording(call)
    run.calls += 1
    for place in places.values():
        run.full = place.crop.full_height, place.crop.full_width
        run.pictures = max(run.pictures, call.total or 0, max(place.numbers) + 1)
    blocks = {block: out[block * rows : (block + 1) * rows, tokens].detach() for block in places}
    return SiteWatch(
        watch, run, {block: base_norms(of) for block, of in blocks.items()}, places, rows, tokens
    )


def _places(
    call: Call, layout: Layout, rows: int, grid: tuple[int, int], latent: tuple[int, int]
) -> dict[int, Place]:
    """Of the blocks of rows that are the positive's."""
    if layout.cut:
        raise MismatchError(
            "another node cuts the picture into parts inside the cross-attentions, and nothing says which part is where, so "
            "Image Prompt: Watch cannot say where the image acts. Take one of the two nodes out."
        )
    numbers = picture_numbers(rows, layout.frames, call.total)
    whole = Crop(0, 0, *latent, *latent)
    crops = layout.crops or (whole,) * len(layout.roles)
    return {
        block: Place(grid, crops[block], numbers) for block, role in enumerate(layout.roles) if role == COND
    }
