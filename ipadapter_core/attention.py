"""Decoupled cross-attention, eq. (8): what one image prompt adds at one site.

Z = Attn(Q, K, V) + λ · Attn(Q, K', V')
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MismatchError
from .masking import Region
from .scaling import Scaling, scaled

COND, UNCOND = 0, 1
KEPT = 8  # ready-made tensors for so many batch layouts or windows
Ready = TypeVar("Ready")


def image_attention(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attn(Q, K', V') with plain SDPA: few keys, so low-precision kernels gain nothing and cost the picture.

    q (B, N, h·d); keys, values (G, h, T, d) with B a multiple of G: B/G neighbours share keys. Returns (B, N, h·d).
    Rows that share their keys are laid end to end as one long query, so keys are never copied.
    """
    batch, length, width = q.shape
    groups, heads, _, dim = keys.shape
    q = q.reshape(groups, -1, heads, dim).transpose(1, 2)  # (G, h, B/G·N, d)
    out = F.scaled_dot_product_attention(q, keys, values)
    return out.transpose(1, 2).reshape(batch, length, width)


class SiteResidual:
    """λ · Attn(Q, K', V') · mask of one prompt at one site. Immutable but for caches of ready-made tensors.

    keys, values: (rows + uncond rows, T, width), cond rows first. weight: λ, or one for each picture, cut, or the last
    one repeated. span: tokens of one image, all without it. repeats: rows that are not as many as the pictures are cut,
    or the last one repeated; else they are refused, unless there is one for all.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        rows: int,
        weight: float | Tensor,
        mask: Tensor | Region | None = None,
        *,
        scaling: Scaling = Scaling.V_ONLY,
        span: int | None = None,
        repeats: bool = False,
    ):
        self.keys, self.values, self.rows, self.weight = keys, values, rows, weight
        self.region = Region(mask) if isinstance(mask, Tensor) else mask
        self.scaling, self.span, self.repeats = scaling, span or keys.shape[1], repeats
        self._ready: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def add_to(
        self,
        out: Tensor,
        q: Tensor,
        heads: int,
        chunks: tuple[int, ...],
        size: tuple[int, int] | None,
        frames: tuple[int, ...] | None = None,
        *,
        in_place: bool = False,
    ) -> Tensor:
        """out + λ·Z''. q, out: (B, N, width), B = len(chunks) · pictures. chunks: cond_or_uncond of the host.

        size: (h, w) of this site's queries, h·w = N; read with a mask only. frames: numbers of these pictures where they
        are a part of an animation. in_place: `out` is nobody else's and may take the sum. Raises MismatchError if the
        batch does not fit.
        """
        pictures, rest = divmod(q.shape[0], len(chunks))
        if rest:
            raise MismatchError(
                f"a batch of {q.shape[0]} came for {len(chunks)} conditionings, which is no multiple of them: another "
                "node changed the batch inside the model. Move it after the image prompt, or take it out."
            )
        addition = image_attention(q, *self._keys_values(q, heads, chunks, pictures, frames))
        into = out if in_place and not out.requires_grad else None
        if self.region is None or size is None:
            return torch.add(out, addition, out=into)
        return torch.addcmul(out, addition, self._mask(self.region, q, len(chunks), size, frames), out=into)

    def _keys_values(
        self,
        q: Tensor,
        heads: int,
        chunks: tuple[int, ...],
        pictures: int,
        frames: tuple[int, ...] | None,
    ) -> tuple[Tensor, Tensor]:
        """K', V' with λ as (chunks · rows, heads, T, d) in q's dtype, on its device; made once for each batch layout."""
        place = (q.device, q.dtype, chunks, pictures, frames)
        ready = self._ready.get(place)
        if ready is None:
            pairs = [self._scaled(chunk, pictures, frames) for chunk in chunks]
            keys, values = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            ready = by_head(keys, heads).to(q), by_head(values, heads).to(q)
            _keep(self._ready, place, ready)
        return ready

    def _scaled(self, chunk: int, pictures: int, frames: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
        """K' and V' of one conditioning with their weight in them: (1 or pictures, T, width) twice."""
        picked = pick_rows(self.rows, pictures, frames, self.repeats)
        part = slice(self.rows, None) if chunk == UNCOND else slice(self.rows)
        keys, values = (t[part].expand(self.rows, -1, -1) for t in (self.keys, self.values))
        if picked is not None:
            keys, values = keys[list(picked)], values[list(picked)]
        weight = self.weight
        if isinstance(weight, Tensor):
            of = pick_rows(len(weight), pictures, frames, True)
            weight = (weight if of is None else weight[list(of)])[:, None, None]
        keys, values = scaled(keys, values, weight, self.scaling, self.span)
        rows = max(keys.shape[0], values.shape[0])
        return keys.expand(rows, -1, -1), values.expand(rows, -1, -1)

    def _mask(
        self,
        region: Region,
        q: Tensor,
        chunks: int,
        size: tuple[int, int],
        frames: tuple[int, ...] | None,
    ) -> Tensor:
        """(1 or B, N, 1) in q's dtype, on its device; resized once for each site size."""
        pictures = q.shape[0] // chunks
        place = (q.device, q.dtype, chunks, pictures, size, frames)
        ready = self._masks.get(place)
        if ready is None:
            masks = region.mask.shape[0]
            if not (self.repeats or frames) and masks not in (1, pictures):
                raise MismatchError(f"{masks} masks came for {pictures} pictures; connect 1, or {pictures}.")
            picked = pick_rows(masks, pictures, frames, True)
            weights = region.weights(*size, q.shape[1])
            if picked is not None:
                weights = weights[list(picked)].repeat(chunks, 1, 1)
            ready = weights.to(q)
            _keep(self._masks, place, ready)
        return ready

    def forget(self, device: torch.device | None = None) -> None:
        """Drop ready-made tensors, all or those on other devices than this one."""
        for cache in (self._ready, self._masks):
            for place in [place for place in cache if place[0] != device]:
                cache.pop(place, None)


def _keep(cache: dict[tuple[Any, ...], Ready], place: tuple[Any, ...], ready: Ready) -> None:
    """The oldest goes: the windows of a long animation would fill the device."""
    while len(cache) >= KEPT:
        cache.pop(next(iter(cache)))
    cache[place] = ready


def pick_rows(
    rows: int, pictures: int, frames: tuple[int, ...] | None, repeats: bool
) -> tuple[int, ...] | None:
    """Which row each picture takes; None where one row serves all. Raises MismatchError where the numbers do not fit."""
    if rows == 1:
        return None
    wanted = frames if frames is not None and len(frames) == pictures else tuple(range(pictures))
    if repeats:
        return tuple(min(number, rows - 1) for number in wanted)
    if (frames is None and rows != pictures) or max(wanted) >= rows:
        raise MismatchError(
            f"the image prompt has {rows} images, one per picture, but {max(pictures, max(wanted) + 1)} pictures are "
            f"sampled. Set the latent's batch_size to {rows}, or encode the images 'all together'."
        )
    return wanted


def by_head(tensor: Tensor, heads: int) -> Tensor:
    """(rows, T, h·d) -> (rows, h, T, d)"""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
