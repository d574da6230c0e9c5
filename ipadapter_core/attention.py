"""Decoupled cross-attention, eq. (8): what one image prompt adds at one site.

Z = Attn(Q, K, V) + λ · Attn(Q, K', V')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MismatchError
from .masking import Crop, Region
from .rows import Numbers, check_masks, pick_rows
from .scaling import Scaling, scaled

COND, UNCOND = 0, 1
KEPT = 8  # ready-made tensors for so many batch layouts or windows
KEPT_MASKS = 64  # they are small, and tiles have one each
Batch = tuple[
    tuple[int, ...], int, Numbers | None, int | None
]  # roles of blocks; pictures of one, frames, total
Size = (
    tuple[int, int] | tuple[int, int, int]
)  # (h, w) of the queries, and how many are in front of the picture's
Ready = TypeVar("Ready")
# (G, h, T, d) twice, and the bias of image_attention
KeysValues = tuple[Tensor, Tensor, Tensor | None]
# Of what a prompt adds: Z'' (B, N, width), and its factors at the sum, as AtSite.strength gives them.
Observer = Callable[[Tensor, Tensor | None, float], None]


def image_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attn(Q, K', V') with plain SDPA: few keys, so low-precision kernels gain nothing and cost the picture.

    q (B, N, h·d); keys, values (G, h, T, d) with B a multiple of G: B/G neighbours share keys. Returns (B, N, h·d).
    Rows that share their keys are laid end to end as one long query, so keys are never copied.
    bias (G, 1, 1, T): −∞ where a row has no such key.
    """
    batch, length, width = q.shape
    groups, heads, _, dim = keys.shape
    q = q.reshape(groups, -1, heads, dim).transpose(1, 2)  # (G, h, B/G·N, d)
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
    return out.transpose(1, 2).reshape(batch, length, width)


class Moment(NamedTuple):
    """When a call of the model is. sigma (1 or more): one object for all calls of a step. timestep: of a sigma, by the model
    that samples."""

    sigma: Tensor
    timestep: Callable[[Tensor], Tensor]


class Own(NamedTuple):
    """What adapters that attend to the picture's own keys too need of a site.

    keys, values (B, N, width): the picture's, the keys normed by the model. query_scales, key_scales (sites, d): of the
    norms of all sites of the model, in each head of dimension d.
    """

    keys: Tensor
    values: Tensor
    query_scales: Tensor
    key_scales: Tensor
    moment: Moment


class Step(NamedTuple):
    """Of one call. factor: on λ, at the sum, so that a weight that changes over time makes no new tensors. total: pictures
    of the latent batch. crops: the part of the picture that each block is. in_place: `out` is nobody else's and may take
    the sum. own: where adapters attend to the picture's own keys too. observer: who sees what is added, if anybody."""

    factor: float = 1.0
    total: int | None = None
    crops: tuple[Crop, ...] | None = None
    in_place: bool = False
    own: Own | None = None
    observer: Observer | None = None


EVERY_STEP = Step()


class AtSite:
    """What one prompt adds at one site, and where: the part that adapters of all kinds have in common."""

    rows: int
    weight: float | Tensor
    region: Region | None
    repeat_last: bool
    masks: dict[tuple[Any, ...], Tensor]

    def attention(self, q: Tensor, heads: int, batch: Batch, step: Step) -> Tensor:
        """Z'' (B, N, width), without λ or with it in V'. q: (B, N, width)."""
        raise NotImplementedError

    def strength(
        self, q: Tensor, size: Size | None, batch: Batch, crops: tuple[Crop, ...] | None
    ) -> tuple[float, Tensor | None]:
        """Factors of Z'' at the sum: one, and one for each row and query (1 or B, 1 or N, 1), if they differ."""
        if self.region is None or size is None:
            return 1.0, None
        return 1.0, self._mask(self.region, q, size, batch, crops)

    def forget(self, device: torch.device | None = None) -> None:
        """Drop ready-made tensors, all or those on other devices than this one."""
        forget(self.masks, device)

    def add_to(
        self,
        out: Tensor,
        q: Tensor,
        heads: int,
        chunks: tuple[int, ...],
        size: Size | None,
        frames: Numbers | None = None,
        step: Step = EVERY_STEP,
    ) -> Tensor:
        """out + factor·λ·Z''. q, out: (B, N, width), B = len(chunks) · pictures. chunks: role of each block of the batch.

        size: (h, w) of this site's queries, h·w = N, or (h, w, n) with n text queries in front of them and others behind
        them; read with a mask only. frames: numbers of the pictures of a block in the latent batch. step: what changes
        from call to call. Raises MismatchError if the batch does not fit.
        """
        pictures, rest = divmod(q.shape[0], len(chunks))
        if rest:
            raise MismatchError(
                f"a batch of {q.shape[0]} came for {len(chunks)} conditionings, which is no multiple of them: another "
                "node changes the batch inside the model in a way that is not known here. Take it out."
            )
        batch = (chunks, pictures, frames, step.total)
        if any(map(self.leaves_out, chunks)):
            return self._add_to_others(out, q, heads, batch, size, step)
        return self._add(out, q, heads, batch, size, step)

    def leaves_out(self, role: int) -> bool:
        """Whether nothing is added to rows of this role."""
        return False

    def _add_to_others(
        self, out: Tensor, q: Tensor, heads: int, batch: Batch, size: Size | None, step: Step
    ) -> Tensor:
        """The sum for the blocks that are not left out: those neither attend nor change."""
        (chunks, pictures, frames, total), start = batch, 0
        own = step.in_place and not out.requires_grad
        into = out if own or all(map(self.leaves_out, chunks)) else out.clone()
        for role, run in groupby(chunks):
            blocks = len(list(run))
            rows, crops = slice(start * pictures, (start + blocks) * pictures), slice(start, start + blocks)
            start += blocks
            if not self.leaves_out(role):
                part = step._replace(crops=step.crops and step.crops[crops], in_place=True)
                roles = (role,) * blocks, pictures, frames, total
                added = self._add(into[rows], q[rows], heads, roles, size, part)
                if added.requires_grad:
                    into[rows] = added
        return into

    def _add(self, out: Tensor, q: Tensor, heads: int, batch: Batch, size: Size | None, step: Step) -> Tensor:
        addition = self.attention(q, heads, batch, step)
        into = out if step.in_place and not out.requires_grad else None
        factor, weights = self.strength(q, size, batch, step.crops)
        if step.observer is not None:
            step.observer(addition, weights, factor * step.factor)
        if weights is None:
            return torch.add(out, addition, alpha=factor * step.factor, out=into)
        return torch.addcmul(out, addition, weights, value=factor * step.factor, out=into)

    def _mask(
        self,
        region: Region,
        q: Tensor,
        size: Size,
        batch: Batch,
        crops: tuple[Crop, ...] | None,
    ) -> Tensor:
        """(1 or B, N, 1) in q's dtype, on its device; resized once for each site size and crop."""
        key = (q.device, q.dtype, batch, size, crops)
        ready = self.masks.get(key)
        if ready is None:
            chunks, pictures, frames, total = batch
            masks = region.mask.shape[0]
            if not (self.repeat_last or frames):
                check_masks(masks, total or pictures)
            picked = pick_rows(masks, pictures, frames, True, total)
            blocks: tuple[Crop | None, ...] = crops or (None,)
            if len(set(blocks)) == 1:
                blocks = blocks[:1] * (1 if picked is None else len(chunks))
            made = {
                crop: region.cut(crop).weights(size[0], size[1], q.shape[1], *size[2:])
                for crop in dict.fromkeys(blocks)
            }
            if picked is not None:
                made = {crop: weights[list(picked)] for crop, weights in made.items()}
            ready = torch.cat([made[crop] for crop in blocks])
            if 1 < ready.shape[0] < q.shape[0]:  # one mask for all pictures of a block
                ready = ready.repeat_interleave(pictures, 0)
            ready = ready.to(q)
            keep(self.masks, key, ready, KEPT_MASKS)
        return ready


@dataclass(eq=False)
class SiteResidual(AtSite):
    """λ · Attn(Q, K', V') · mask of one prompt at one site. Immutable but for caches of ready-made tensors.

    keys, values: (rows + uncond rows, T, width), cond rows first; without uncond rows nothing is added to those. weight: λ,
    or one for each picture, cut, or the last one repeated. tokens_per_image: all T tokens belong to one image without it.
    repeat_last: rows that are not as many as the pictures are cut, or the last one repeated; else they are refused, unless
    there is one for all. lengths: how many of the T tokens a cond and an uncond row have, where they differ.
    """

    keys: Tensor
    values: Tensor
    rows: int
    weight: float | Tensor
    mask: InitVar[Tensor | Region | None] = None
    scaling: Scaling = field(default=Scaling.V_ONLY, kw_only=True)
    tokens_per_image: int | None = field(default=None, kw_only=True)
    repeat_last: bool = field(default=False, kw_only=True)
    lengths: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self, mask: Tensor | Region | None) -> None:
        self.region = Region(mask) if isinstance(mask, Tensor) else mask
        self.ready: dict[tuple[Any, ...], KeysValues] = {}
        self.masks = {}

    def leaves_out(self, role: int) -> bool:
        return role == UNCOND and self.keys.shape[0] == self.rows

    def attention(self, q: Tensor, heads: int, batch: Batch, step: Step) -> Tensor:
        return image_attention(q, *self._keys_values(q, heads, batch))

    def _keys_values(self, q: Tensor, heads: int, batch: Batch) -> KeysValues:
        """K', V' with λ as (blocks · rows, heads, T, d) in q's dtype, on its device; made once for each batch layout.

        And the bias that hides the keys that a row does not have.
        """
        key = (q.device, q.dtype, batch)
        if key not in self.ready:
            keep(self.ready, key, self.make_keys_values(q, heads, batch), KEPT)
        return self.ready[key]

    def make_keys_values(self, q: Tensor, heads: int, batch: Batch) -> KeysValues:
        chunks = batch[0]
        made = {role: self._scaled(role, *batch[1:]) for role in dict.fromkeys(chunks)}
        keys, values = (torch.cat(parts) for parts in zip(*(made[role] for role in chunks), strict=True))
        lengths = [_length(self.lengths, role, keys.shape[1]) for role in chunks]
        keys, values = (t[:, : max(lengths)] for t in (keys, values))
        bias = hiding(lengths, keys.shape[0] // len(chunks), q)
        return by_head(keys, heads).to(q), by_head(values, heads).to(q), bias

    def _scaled(
        self, role: int, pictures: int, frames: Numbers | None, total: int | None
    ) -> tuple[Tensor, Tensor]:
        """K' and V' of one conditioning with their weight in them: (1 or pictures, T, width) twice."""
        picked = pick_rows(self.rows, pictures, frames, self.repeat_last, total)
        part = slice(self.rows, None) if role == UNCOND else slice(self.rows)
        keys, values = (t[part].expand(self.rows, -1, -1) for t in (self.keys, self.values))
        if picked is not None:
            keys, values = keys[list(picked)], values[list(picked)]
        weight = self.weight
        if isinstance(weight, Tensor):
            of = pick_rows(len(weight), pictures, frames, True, total)
            weight = (weight if of is None else weight[list(of)])[:, None, None]
        keys, values = scaled(keys, values, weight, self.scaling, self.tokens_per_image or self.keys.shape[1])
        rows = max(keys.shape[0], values.shape[0])
        return keys.expand(rows, -1, -1), values.expand(rows, -1, -1)

    def forget(self, device: torch.device | None = None) -> None:
        super().forget(device)
        forget(self.ready, device)


def forget(cache: dict[tuple[Any, ...], Any], device: torch.device | None) -> None:
    """Drop what is on another device. cache: by tuples whose first part is the device."""
    for key in [key for key in cache if key[0] != device]:
        cache.pop(key, None)


def keep(cache: dict[tuple[Any, ...], Ready], key: tuple[Any, ...], ready: Ready, kept: int) -> None:
    """The oldest goes: the windows of a long animation would fill the device."""
    while len(cache) >= kept:
        cache.pop(next(iter(cache)))
    cache[key] = ready


def _length(lengths: tuple[int, int] | None, role: int, longest: int) -> int:
    return longest if lengths is None else lengths[role == UNCOND]


def hiding(lengths: list[int], rows: int, q: Tensor) -> Tensor | None:
    """(blocks · rows, 1, 1, T) for blocks of so many tokens: −∞ where one has fewer than T; None where none has."""
    if len(set(lengths)) == 1:
        return None
    bias = torch.zeros(len(lengths), rows, max(lengths))
    for block, length in zip(bias, lengths, strict=True):
        block[:, length:] = float("-inf")
    return bias.flatten(0, 1)[:, None, None].to(q)


def normed_by_head(keys: Tensor, heads: int, eps: float = 1e-5) -> Tensor:
    """K' (rows, T, h·d) with each head's part of root mean square 1, as transformers norm their own keys."""
    parts = keys.unflatten(-1, (heads, -1))
    return F.rms_norm(parts, parts.shape[-1:], eps=eps).flatten(-2)


def by_head(tensor: Tensor, heads: int) -> Tensor:
    """(rows, T, h·d) -> (rows, h, T, d)"""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
