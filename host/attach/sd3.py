"""SD3.5: image prompts beside the joint attention of a block, whose image rows attend to their own keys once more.

Adapters read q and k under norms of their own, while an override of the attention sees them under the model's. Both norms
divide by the same root mean square, so the scales of the model's are handed on, and the prompts put theirs in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...ipadapter_core.attention import Own
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.families.site import Site
from .base import Options, Patches, Residual, Residuals, call_of
from .blocks import Args, Block, BlockAttachment, BlockPatch, Prompts, Replacement, Tap
from .compiled import PARTS

_LEAST_SCALE = 1e-3  # dividing by less would make noise of what was rounded away


class SD3Attachment(BlockAttachment):
    """As base.Attachment."""

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        made, scales = dict(standing), Scales.of(blocks)
        for site, at_site in residuals.items():
            place = "double_block", site.run_index
            made[place] = SD3Block(standing.get(place), site.heads, at_site, scales)
        return made


class Scales(NamedTuple):
    """Of the model's norms of q and k: (sites, d) each, in fp32. Sites without a prompt have scales of 1."""

    query: Tensor
    key: Tensor

    @classmethod
    def of(cls, blocks: Mapping[Site, nn.Module]) -> Scales:
        """Raises MismatchError for a model without such norms, or with scales that cannot be divided by."""
        made = [torch.stack([_scale(block, name) for block in blocks.values()]) for name in ("ln_q", "ln_k")]
        if min(float(scales.abs().min()) for scales in made) < _LEAST_SCALE:
            raise MismatchError(
                "the connected model norms its queries or keys to almost nothing in one of their parts, which cannot be "
                "taken back for the image prompt. Take out the LoRA or the merge that made it so."
            )
        rows = torch.tensor([site.run_index for site in blocks])
        whole = [
            torch.ones(int(rows.max()) + 1, scales.shape[1]).index_copy(0, rows, scales) for scales in made
        ]
        return cls(*whole)


def _scale(block: Any, name: str) -> Tensor:
    weight: Tensor | None = getattr(getattr(block.x_block.attn, name, None), "weight", None)
    if weight is None:
        raise MismatchError(
            "the connected model does not norm its queries and keys, as SD3.5 does, so this image prompt cannot act in it. "
            "Load SD3.5 Large."
        )
    return weight.detach().float().cpu()


class SD3Block(BlockPatch):
    """As BlockPatch."""

    def __init__(self, base: Replacement | None, heads: int, residuals: Sequence[Residual], scales: Scales):
        super().__init__(base, heads, residuals)
        self.prompts = JointPrompts(residuals, scales)

    def run(self, original: Block, args: Args) -> dict[str, Any]:
        tap = _SD3Tap(self, args)
        return tap.run(original, args)


class _SD3Tap(Tap):
    def __init__(self, patch: SD3Block, args: Args):
        super().__init__(patch.heads, args)
        self.prompts = patch.prompts

    def added(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, own: bool) -> Tensor:
        """Of the joint attention: SD3.5 Medium has a second one, of the image alone."""
        if q.shape[1] != self.rows:
            return out
        q, k, v = (
            t[:, self.text :].flatten(2) for t in (q, k, v)
        )  # from (rows, N, width) or (rows, N, heads, d)
        options = {**self.options(0), PARTS: (k, v)}
        return self.behind_text(out, own, lambda part: self.prompts.add(part, q, options, own))


class JointPrompts(Prompts):
    """As Prompts. scales: of the model's norms."""

    def __init__(self, residuals: Sequence[Residual], scales: Scales):
        super().__init__(residuals)
        self.scales = scales

    def own_keys(self, options: Options) -> Own:
        keys, values = options[PARTS]
        return Own(keys, values, *self.scales, call_of(options).moment)
