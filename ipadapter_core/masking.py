"""Regions: a mask over the picture -> one weight for each query token of a site."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .errors import MismatchError
from .values import masks


def as_mask(mask: Tensor) -> Tensor:
    """A user's mask as (m, H, W) in fp32 on the CPU, values clipped to 0..1. Raises MismatchError if it is empty."""
    mask = masks(mask, "the mask").cpu().clamp(0, 1)
    if not bool(mask.any()):
        raise MismatchError(
            "the mask is empty: every pixel is 0, so the image prompt would change nothing. "
            "Paint the region that the image shall steer in white, or disconnect the mask."
        )
    return mask


@dataclass(frozen=True)
class Crop:
    """A part of a picture in latent units: of (full_height, full_width), from (top, left) on, over an edge if it must."""

    top: int
    left: int
    height: int
    width: int
    full_height: int
    full_width: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the picture, in crop."""
        return (self.top, self.left, self.height, self.width) == (0, 0, self.full_height, self.full_width)


@dataclass(frozen=True, eq=False)
class Region:
    """Where a prompt acts: mask (m, H, W), m 1 or one for each picture.

    interpolation: 'area', the mean over what a query token covers; 'bilinear' or 'bicubic', the mask at its centre, as the
    de-facto pack reads it. sqrt_grid: that pack's sizes too, which follow from a square root and are wrong where sides were
    rounded up.
    """

    mask: Tensor
    interpolation: str = "area"
    sqrt_grid: bool = False

    def size(self, tokens: int, latent: tuple[int, int]) -> tuple[int, int] | None:
        """(h, w) at a site of `tokens` queries, where this region has a rule of its own."""
        return sqrt_grid_size(tokens, *latent) if self.sqrt_grid else None

    def cut(self, crop: Crop | None) -> Region:
        """The region in this part of the picture; itself where that is all of it."""
        if crop is None or crop.whole:
            return self
        full, mask = (crop.full_height, crop.full_width), self.mask
        if mask.shape[-2] % full[0] or mask.shape[-1] % full[1]:  # to whole pixels for each latent
            mask = F.interpolate(mask[:, None], (8 * full[0], 8 * full[1]), mode="area")[:, 0]
        rows, columns = (
            torch.arange(first * (size // all_), (first + part) * (size // all_)) % size
            for first, part, all_, size in (
                (crop.top, crop.height, full[0], mask.shape[-2]),
                (crop.left, crop.width, full[1], mask.shape[-1]),
            )
        )
        return replace(self, mask=mask[:, rows][:, :, columns])

    def weights(self, height: int, width: int, tokens: int, before: int = 0) -> Tensor:
        """(m, tokens, 1). before: tokens of text in front of the picture's, in a transformer's blocks of one stream.

        They are of the whole picture and get the mean of the mask, so that m and 1 − m add up there too. What follows the
        picture's tokens are other pictures (reference latents): no place of a mask, so 0.
        """
        weights = token_weights(self.mask, height, width, self.interpolation)
        if self.sqrt_grid:
            return _fitted(weights, tokens)
        if tokens == height * width:
            return weights
        text = weights.mean(1, keepdim=True).expand(-1, before, -1)
        return F.pad(torch.cat((text, weights), 1), (0, 0, 0, tokens - before - height * width))


def token_weights(mask: Tensor, height: int, width: int, mode: str = "area") -> Tensor:
    """Mask (m, H, W) -> (m, height·width, 1): the mean over the area that each query token covers.

    Means over areas are linear, so the weights of m and 1 − m add up to 1 everywhere.
    """
    resized = F.interpolate(mask[:, None], size=(height, width), mode=mode)
    return rearrange(resized, "m 1 h w -> m (h w) 1")


def sqrt_grid_size(tokens: int, latent_height: int, latent_width: int) -> tuple[int, int]:
    """(h, w) by the rule h = ⌊H / √(HW / tokens)⌋, one more if that does not divide the tokens; w = ⌊tokens / h⌋."""
    height = int(latent_height / math.sqrt(latent_height * latent_width / tokens))
    height += tokens % height != 0
    return height, tokens // height


def _fitted(weights: Tensor, tokens: int) -> Tensor:
    """Where the rule above misses the number of tokens: zeros around the list, or its middle."""
    lacking = tokens - weights.shape[1]
    if lacking >= 0:
        return F.pad(weights, (0, 0, lacking // 2, lacking - lacking // 2))
    start = -lacking // 2
    return weights[:, start : start + tokens]
