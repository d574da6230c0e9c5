"""Qwen-Image: image prompts beside the joint attention of a block, on its image rows.

q is what the attention gets: under the model's norm, and rotated. Adapters for it are trained so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...ipadapter_core.families.site import Site
from .base import Patches, Residual, Residuals
from .blocks import Args, Block, BlockAttachment, BlockPatch, Prompts, Replacement, Tap, merged_heads


class QwenAttachment(BlockAttachment):
    """As base.Attachment."""

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        made = dict(standing)
        for site, at_site in residuals.items():
            place = "double_block", site.run_index
            made[place] = QwenBlock(standing.get(place), site.heads, at_site)
        return made


class QwenBlock(BlockPatch):
    """As BlockPatch."""

    def __init__(self, base: Replacement | None, heads: int, residuals: Sequence[Residual]):
        super().__init__(base, heads, residuals)
        self.prompts = Prompts(residuals)

    def run(self, original: Block, args: Args) -> dict[str, Any]:
        return _QwenTap(self, args).run(original, args)


class _QwenTap(Tap):
    def __init__(self, patch: QwenBlock, args: Args):
        super().__init__(patch.heads, args)
        self.prompts = patch.prompts

    def added(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, own: bool) -> Tensor:
        q = merged_heads(q) if q.ndim == 4 else q  # hosts before November 2025 merge them themselves
        if q.shape[1] != self.rows:  # an attention of another pack, inside the block
            return out
        q, options = q[:, self.text :], self.options(self.text)
        return self.behind_text(out, own, lambda part: self.prompts.add(part, q, options, own))
