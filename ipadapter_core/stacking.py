"""Several image prompts at one site by one attention: a row of the batch for each, their sum added once.

Σ λ_p · m_p · Attn(Q, K'_p, V'_p): every prompt keeps a softmax of its own. Four take as few operations as two alone do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .attention import (
    KEPT,
    KEPT_MASKS,
    UNCOND,
    AtSite,
    Batch,
    KeysValues,
    SiteResidual,
    Size,
    Step,
    image_attention,
    keep,
)
from .errors import about
from .masking import Crop

Made = TypeVar("Made")

FEWEST = 3  # two alone take no more operations than a stack of them
MOST = 4  # of them at once hold about what the feed-forward layer of the same block holds
# of the queries of all: beyond a core's cache, laying them side by side costs more than it saves
CPU_BYTES = 2**20


class Stack(AtSite):
    """Some prompts of one site, of one kind. Ready-made tensors are kept by the first of them.

    names: the part of a graph that each is from, which errors about one of them begin with.
    """

    def __init__(self, members: Sequence[SiteResidual], names: Sequence[str] = ()):
        self.members, self.names = tuple(members), names or ("",) * len(members)
        self.region = next((each.region for each in members if each.region is not None), None)

    def leaves_out(self, role: int) -> bool:
        return self.members[0].leaves_out(role)

    def _add(self, out: Tensor, q: Tensor, heads: int, batch: Batch, size: Size | None, step: Step) -> Tensor:
        added = self.attention(q, heads, batch, step)
        weights = None if size is None or self.region is None else self._weights(q, size, batch, step.crops)
        if step.observer is not None:
            step.observer(added, weights, step.factor)
        if weights is not None:
            added = torch.mul(added, weights, out=None if added.requires_grad else added)
        into = out if step.in_place and not out.requires_grad else None
        return torch.add(out, added.sum(0), alpha=step.factor, out=into)

    def attention(self, q: Tensor, heads: int, batch: Batch, step: Step) -> Tensor:
        """(prompts, B, N, width)"""
        stacked = q.expand(len(self.members), *q.shape)
        keys, values, bias = self._keys_values(q, heads, batch)
        groups = keys.shape[0] // len(self.members)
        # rows that share their keys are one long query, as in image_attention: with one group nothing is copied
        rows = stacked.reshape(len(self.members) * groups, -1, q.shape[2])
        return image_attention(rows, keys, values, bias).reshape(stacked.shape)

    def _keys_values(self, q: Tensor, heads: int, batch: Batch) -> KeysValues:
        first = self.members[0]
        key = (q.device, q.dtype, batch, self.members)
        ready = first.ready.get(key)
        if ready is None:
            made = self._of_each(lambda each: each.make_keys_values(q, heads, batch))
            keys, values = torch.cat([each[0] for each in made]), torch.cat([each[1] for each in made])
            biases = [each[2] for each in made if each[2] is not None]
            ready = keys, values, torch.cat(biases) if biases else None
            keep(first.ready, key, ready, KEPT)
        return ready

    def _weights(self, q: Tensor, size: Size, batch: Batch, crops: tuple[Crop, ...] | None) -> Tensor:
        """(prompts, 1 or B, N, 1)"""
        masks = self.members[0].masks
        key = (q.device, q.dtype, batch, size, crops, self.members)
        if key not in masks:
            made = self._of_each(lambda each: each.strength(q, size, batch, crops)[1])
            found = [q.new_ones(1, q.shape[1], 1) if mask is None else mask for mask in made]
            rows = max(len(each) for each in found)
            keep(masks, key, torch.stack([each.expand(rows, -1, -1) for each in found]), KEPT_MASKS)
        return masks[key]

    def _of_each(self, make: Callable[[SiteResidual], Made]) -> list[Made]:
        made: list[Made] = []
        for member, name in zip(self.members, self.names, strict=True):
            with about(name):
                made.append(make(member))
        return made


def stack_of(sites: Sequence[AtSite], names: Sequence[str] = ()) -> AtSite:
    """The only one, or a stack of those that `stacks` puts together. names: as of Stack."""
    members = [each for each in sites if isinstance(each, SiteResidual)]
    return sites[0] if len(sites) == 1 else Stack(members, names)


def stacks(acting: Sequence[tuple[AtSite, float]], q: Tensor) -> list[list[int]]:
    """Which of a site's prompts are added together, by their numbers; each is in one of the lists.

    acting: with their factors in this call. Those go together whose keys and masks have the same layout.
    """
    kinds: dict[object, list[int]] = {}
    for number, (site, factor) in enumerate(acting):
        kinds.setdefault((factor, _kind(site)), []).append(number)
    found: list[list[int]] = []
    for numbers in kinds.values():
        for start in range(0, len(numbers), MOST):
            part = numbers[start : start + MOST]
            found += [part] if _pays(len(part), q) else [[number] for number in part]
    return found


def _pays(count: int, q: Tensor) -> bool:
    fits = q.device.type != "cpu" or count * q.numel() * q.element_size() <= CPU_BYTES
    return count >= FEWEST and fits


def _kind(site: AtSite) -> object:
    """Equal for prompts that can be stacked; of other classes, each its own."""
    if not isinstance(site, SiteResidual):
        return site
    rows_differ = site.rows > 1 or (isinstance(site.weight, Tensor) and len(site.weight) > 1)
    sqrt_grid = site.region is not None and site.region.sqrt_grid
    return site.leaves_out(UNCOND), site.keys.shape[1], site.lengths, rows_differ, sqrt_grid
