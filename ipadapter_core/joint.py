"""Image prompts whose K' and V' follow from the timestep, beside the picture's own keys: InstantX's for SD3.5.

Z'' = Attn(Q', [K_own | K'], [V_own | V'])    (pipeline_stable_diffusion_3_ipa.py, JointIPAttnProcessor)

Q' and K_own are the model's q and k under the adapter's norm instead of the model's own. Both divide by the same root mean
square and differ in their scales only, so what the model has normed is scaled over: all scales are put into the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .adapter import TokenSource
from .attention import COND, KEPT_MASKS, UNCOND, AtSite, Batch, Own, Size, Step, hiding, keep
from .masking import Crop, Region
from .rows import pick_rows


class Ready(NamedTuple):
    """Of all sites in one call: keys, values (sites, B, T, heads, d); own_scales (sites, d) of the picture's own keys; bias
    (B, 1, 1, T), −∞ where a row has no such key."""

    keys: Tensor
    values: Tensor
    own_scales: Tensor
    bias: Tensor | None


class TimedPairs:
    """K' and V' of one prompt: computed once a step, for all its sites and conditionings. Kept on each device until then.

    cond (rows, images · t, width) and uncond (1 or rows, images' · t, width): features of t encoder tokens an image.
    weights (rows, images): of the images.
    """

    def __init__(self, adapter: TokenSource, cond: Tensor, uncond: Tensor, weights: Tensor):
        size = cond.shape[1] // weights.shape[1]
        self.adapter, self.rows = adapter, cond.shape[0]
        self._images = {COND: cond.unflatten(1, (-1, size)), UNCOND: uncond.unflatten(1, (-1, size))}
        self.gains, self._shares = _gains_and_shares(weights)
        self._features: dict[tuple[torch.device, int], Tensor] = {}
        self._step: dict[torch.device, tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]] = {}
        self._call: dict[torch.device, tuple[tuple[object, ...], Own, Ready]] = {}

    def at(self, own: Own, batch: Batch, repeat_last: bool, like: Tensor) -> Ready:
        """For a call of this layout, in like's dtype, on its device."""
        key = (id(own.moment.sigma), id(own.query_scales), batch, repeat_last, like.dtype)
        last = self._call.get(like.device)
        if last is None or last[0] != key:
            last = (
                key,
                own,
                self._arranged(own, batch, repeat_last, like),
            )  # own: so that no identity is used again
            self._call[like.device] = last
        return last[2]

    def forget(self) -> None:
        for kept in (self._features, self._step, self._call):
            kept.clear()

    def _arranged(self, own: Own, batch: Batch, repeat_last: bool, like: Tensor) -> Ready:
        chunks, pictures, frames, total = batch
        picked = pick_rows(self.rows, pictures, frames, repeat_last, total)
        of_role = self._of_roles(own, tuple(dict.fromkeys(chunks)), like)
        lengths = [of_role[role][0].shape[2] for role in chunks]
        made = {
            role: tuple(_of_pictures(t, picked, self.rows, pictures, max(lengths)) for t in pair)
            for role, pair in of_role.items()
        }
        keys, values = (torch.cat([made[role][part] for role in chunks], 1) for part in (0, 1))
        norms = (norm.to(like.device, torch.float32) for norm in self.adapter.query_key_norms())
        own_norms = (norm.to(like.device, torch.float32) for norm in (own.query_scales, own.key_scales))
        of_q, of_k = (norm / own_norm for norm, own_norm in zip(norms, own_norms, strict=True))
        keys, values = (t.unflatten(-1, (-1, of_q.shape[-1])) for t in (keys, values))
        keys = keys * of_q[:, None, None, None]
        bias = hiding(lengths, pictures, like)
        return Ready(keys.to(like), values.to(like), (of_q * of_k).to(like), bias)

    def _of_roles(self, own: Own, roles: tuple[int, ...], like: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """K' and V' (sites, rows, T, width) of conditionings at this step."""
        sigma, timestep = own.moment
        at, known = self._step.get(like.device, (None, {}))
        if at is not sigma:
            known = {}
            self._step[like.device] = sigma, known
        missing = [role for role in roles if role not in known]
        if missing:
            features = [self._features_of(role, like.device) for role in missing]
            pairs = self.adapter.keys_values_at(torch.cat(features), timestep(sigma[:1]), like.dtype)
            counts = [len(each) for each in features]
            for role, keys, values in zip(missing, *(t.split(counts, 1) for t in pairs), strict=True):
                known[role] = self._of_rows(role, keys), self._weighted(role, self._of_rows(role, values))
        return known

    def _features_of(self, role: int, device: torch.device) -> Tensor:
        """(images, t, width)"""
        key = (device, role)
        if key not in self._features:
            self._features[key] = self._images[role].flatten(0, 1).to(device, torch.float32)
        return self._features[key]

    def _of_rows(self, role: int, tensor: Tensor) -> Tensor:
        """(sites, images, tokens, width) -> (sites, rows, T, width)"""
        return tensor.unflatten(1, self._images[role].shape[:2]).flatten(2, 3)

    def _weighted(self, role: int, values: Tensor) -> Tensor:
        if role != COND or self._shares is None:
            return values
        shares = self._shares.to(values)
        tokens = values.shape[2] // shares.shape[1]
        return values * shares.repeat_interleave(tokens, 1)[..., None]


def _gains_and_shares(weights: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """A row's largest weight (rows), which scales all that the row adds, and those of its images beside it, which scale V'.

    So one image's weight is a factor on λ, and images of weight 0 among others keep their keys. None where all are 1.
    """
    gains = weights.gather(1, weights.abs().argmax(1, keepdim=True))
    shares = weights / gains.where(gains != 0, 1.0)
    plain_gains, plain_shares = bool((gains == 1).all()), bool((shares == 1).all() or (gains == 0).all())
    return None if plain_gains else gains[:, 0], None if plain_shares else shares


def _of_pictures(
    tensor: Tensor, picked: tuple[int, ...] | None, rows: int, pictures: int, length: int
) -> Tensor:
    """(sites, 1 or rows, T, width) -> (sites, pictures, length, width), filled up with zeros."""
    tensor = tensor.expand(-1, rows, -1, -1)
    tensor = tensor.expand(-1, pictures, -1, -1) if picked is None else tensor[:, list(picked)]
    return F.pad(tensor, (0, 0, 0, length - tensor.shape[2])) if tensor.shape[2] < length else tensor


@dataclass(eq=False)
class JointResidual(AtSite):
    """λ · Z'' · mask of one prompt at one site. number: of the site. Else as of SiteResidual."""

    pairs: TimedPairs
    number: int
    weight: float | Tensor
    region: Region | None = None
    repeat_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.rows = self.pairs.rows
        self.masks = {}

    def attention(self, q: Tensor, heads: int, batch: Batch, step: Step) -> Tensor:
        assert step.own is not None, "the place where the prompt enters gives no keys of the picture"
        own, ready = step.own, self.pairs.at(step.own, batch, self.repeat_last, q)
        q, own_keys, own_values = (t.unflatten(-1, (heads, -1)) for t in (q, own.keys, own.values))
        keys = torch.cat((own_keys * ready.own_scales[self.number], ready.keys[self.number]), 1)
        values = torch.cat((own_values, ready.values[self.number]), 1)
        bias = None if ready.bias is None else F.pad(ready.bias, (own_keys.shape[1], 0))
        q, keys, values = (t.transpose(1, 2) for t in (q, keys, values))  # (B, heads, ·, d)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
        return out.transpose(1, 2).flatten(2)

    def strength(
        self, q: Tensor, size: Size | None, batch: Batch, crops: tuple[Crop, ...] | None
    ) -> tuple[float, Tensor | None]:
        """With λ, since the picture's own values are in Z'' too."""
        _, mask = super().strength(q, size, batch, crops)
        if not isinstance(self.weight, Tensor) and self.pairs.gains is None:
            return self.weight, mask
        by_row = self._by_row(q, batch)
        return 1.0, by_row if mask is None else mask * by_row

    def _by_row(self, q: Tensor, batch: Batch) -> Tensor:
        """λ of each row (B, 1, 1), with the gains of its images."""
        key = (q.device, q.dtype, batch)
        if key not in self.masks:
            chunks, pictures, frames, total = batch
            weight = torch.as_tensor(self.weight, dtype=torch.float32).reshape(-1)
            of = pick_rows(len(weight), pictures, frames, True, total)
            weight = weight.expand(pictures) if of is None else weight[list(of)]
            gains = torch.ones(1) if self.pairs.gains is None else self.pairs.gains
            of = pick_rows(self.rows, pictures, frames, self.repeat_last, total)
            gains = gains.expand(pictures) if of is None else gains.expand(self.rows)[list(of)]
            made = torch.cat([weight * gains if role == COND else weight for role in chunks])
            keep(self.masks, key, made[:, None, None].to(q), KEPT_MASKS)
        return self.masks[key]

    def forget(self, device: torch.device | None = None) -> None:
        super().forget(device)
        self.pairs.forget()
