"""Flux and Chroma: image prompts beside the attention of a block, or on the image stream behind it.

Adapters read q after its norm and before rotary embedding, while an override of the attention sees it rotated: the
transposed rotation, which the block is given, takes it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...ipadapter_core.families.flux import DOUBLE, SINGLE
from ...ipadapter_core.families.site import Site
from .base import Patches, Residual, Residuals, call_of
from .blocks import (
    Args,
    Block,
    BlockAttachment,
    BlockPatch,
    Place,
    Prompts,
    Replacement,
    Tap,
    merged_heads,
    options_of,
)

_TEXT = "text tokens"  # key of a call's notes
_FIRST: Place = (f"{DOUBLE}_block", 0)


class FluxAttachment(BlockAttachment):
    """As base.Attachment."""

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        made = dict(standing)
        for site, at_site in residuals.items():
            place = f"{site.stage}_block", int(site.path.rsplit(".", 1)[1])
            made[place] = FluxBlock(standing.get(place), site.heads, at_site)
        if any(site.stage == SINGLE for site in residuals) and not isinstance(made.get(_FIRST), BlockPatch):
            made[_FIRST] = FluxBlock(standing.get(_FIRST), 0, ())  # which notes how much text there is
        return made


class FluxBlock(BlockPatch):
    """As BlockPatch. Some prompts enter its attention, others stand behind it."""

    def __init__(self, base: Replacement | None, heads: int, residuals: Sequence[Residual]):
        super().__init__(base, heads, residuals)
        self.attention = Prompts([each for each in residuals if not each.behind])
        self.behind = Prompts([each for each in residuals if each.behind])

    def __call__(self, args: Args, extra: dict[str, Any]) -> dict[str, Any]:
        if "txt" in args:
            call_of(options_of(args)).notes[_TEXT] = args["txt"].shape[1]
        return super().__call__(args, extra)

    def run(self, original: Block, args: Args) -> dict[str, Any]:
        tap = _FluxTap(self, args)
        out = tap.run(original, args)
        if tap.q is not None:
            own = not out["img"].requires_grad
            out["img"] = self.behind.add(out["img"], tap.q, tap.options(0), own)
        return out


class _FluxTap(Tap):
    """Adds prompts to what the attention gives, and keeps q for those behind the block."""

    def __init__(self, patch: FluxBlock, args: Args):
        super().__init__(patch.heads, args)
        self.patch, self.pe = patch, args["pe"]
        self.q: Tensor | None = None  # before rotation, of the image stream (rows, N, width)

    def added(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, own: bool) -> Tensor:
        if q.ndim != 4 or q.shape[2] != self.rows:  # an attention of another pack, inside the block
            return out
        q = merged_heads(unrotated(q[:, :, self.text :], self.pe, self.text))
        if self.patch.behind.residuals and self.q is None:
            self.q = q
        prompts = self.patch.attention
        if not prompts.residuals:
            return out
        options = self.options(0 if self.text else call_of(self.given).notes.get(_TEXT, -1))
        return self.behind_text(out, own, lambda part: prompts.add(part, q, options, own))


def unrotated(q: Tensor, pe: Tensor | None, start: int = 0) -> Tensor:
    """q (rows, heads, N, d) as it was before rotary embedding. pe (1 or rows, 1, ≥ start + N, d/2, 2, 2): the rotations.

    They are orthogonal: the transposed one takes each back.
    """
    if pe is None:
        return q
    pairs = q.to(pe.dtype).unflatten(-1, (-1, 2))
    pe = pe[:, :, start : start + q.shape[2]]
    turned = torch.addcmul(pe[..., 0, :] * pairs[..., :1], pe[..., 1, :], pairs[..., 1:])
    return turned.flatten(-2).to(q.dtype)
