"""Decoupled cross-attention, eq. (8): what one image prompt adds at one site.

Z = Attn(Q, K, V) + λ · Attn(Q, K', V')
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MismatchError
from .masking import token_weights

COND, UNCOND = 0, 1


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

    keys, values: (rows + uncond rows, T, width), cond rows first. mask: (m, H, W) over the picture, m 1 or rows.
    """

    def __init__(self, keys: Tensor, values: Tensor, rows: int, weight: float, mask: Tensor | None = None):
        self.keys, self.values, self.rows, self.weight, self.mask = keys, values, rows, weight, mask
        self._ready: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def add_to(
        self, out: Tensor, q: Tensor, heads: int, chunks: tuple[int, ...], size: tuple[int, int] | None
    ) -> Tensor:
        """out + λ·Z''. q, out: (B, N, width), B = len(chunks) · pictures. chunks: cond_or_uncond of the host.

        size: (h, w) of this site's queries, h·w = N; read with a mask only. Raises MismatchError if the batch does not fit.
        """
        pictures, rest = divmod(q.shape[0], len(chunks))
        if rest:
            raise MismatchError(
                f"a batch of {q.shape[0]} came for {len(chunks)} conditionings, which is no multiple of them: another "
                "node changed the batch inside the model. Move it after the image prompt, or take it out."
            )
        if self.rows not in (1, pictures):
            raise MismatchError(
                f"the image prompt has {self.rows} images, one per picture, but {pictures} pictures are sampled. "
                f"Set the latent's batch_size to {self.rows}, or encode the images 'all together'."
            )
        addition = image_attention(q, *self._keys_values(q, heads, chunks))
        if self.mask is None or size is None:
            return out + addition
        return torch.addcmul(out, addition, self._mask(self.mask, q, len(chunks), size))

    def _keys_values(self, q: Tensor, heads: int, chunks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """K', λV' as (chunks · rows, heads, T, d) in q's dtype, on its device; made once for each batch layout."""
        place = (q.device, q.dtype, chunks)
        ready = self._ready.get(place)
        if ready is None:
            ready = self._ready[place] = (
                self._laid_out(self.keys, heads, chunks).to(q.device, q.dtype),
                self._laid_out(self.values * self.weight, heads, chunks).to(q.device, q.dtype),
            )
        return ready

    def _laid_out(self, tensor: Tensor, heads: int, chunks: tuple[int, ...]) -> Tensor:
        cond = tensor[: self.rows]
        uncond = tensor[self.rows :].expand_as(cond)
        rows = torch.cat([cond if chunk == COND else uncond for chunk in chunks])
        return rows.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()

    def _mask(self, mask: Tensor, q: Tensor, chunks: int, size: tuple[int, int]) -> Tensor:
        """(1 or B, N, 1) in q's dtype, on its device; resized once for each site size."""
        pictures = q.shape[0] // chunks
        place = (q.device, q.dtype, chunks, pictures, size)
        ready = self._masks.get(place)
        if ready is None:
            if mask.shape[0] not in (1, pictures):
                raise MismatchError(
                    f"{mask.shape[0]} masks came for {pictures} pictures; connect 1, or {pictures}."
                )
            weights = token_weights(mask, *size)
            if weights.shape[0] > 1:
                weights = weights.repeat(chunks, 1, 1)
            ready = self._masks[place] = weights.to(q.device, q.dtype)
        return ready

    def forget(self, device: torch.device | None = None) -> None:
        """Drop ready-made tensors, all or those on other devices than this one."""
        for cache in (self._ready, self._masks):
            for place in [place for place in cache if place[0] != device]:
                cache.pop(place, None)
