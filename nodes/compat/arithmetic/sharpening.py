"""Contrast adaptive sharpening, after AMD's FidelityFX CAS."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# (row, column) in the 3 x 3 window: the pixel itself, then up, left, right, down
_PLUS = ((1, 1), (0, 1), (1, 0), (1, 2), (2, 1))
_CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2))


def sharpen(images: Tensor, amount: float) -> Tensor:
    """Pictures (n, H, W, c) in 0..1, sharpened where contrast leaves room; amount 0 (not at all) to 1.

    Outside the picture is black, so its border darkens, as in the de-facto pack.
    """
    if amount <= 0:
        return images
    plus, corners = _neighbours(images, _PLUS), _neighbours(images, _CORNERS)
    low = (plus.amin(0) + corners.amin(0)).clamp(min=0)
    high = plus.amax(0) + corners.amax(0)
    # a product with the reciprocal is bit-identical to the pack's
    room = (torch.minimum(low, 2 - high) * high.reciprocal()).sqrt()
    lobe = -room * (amount * (1 / 5 - 1 / 8) + 1 / 8)
    centre, around = plus[0], plus[1] + plus[2] + plus[3] + plus[4]
    return ((centre + lobe * around) * (1 + 4 * lobe).reciprocal()).nan_to_num(0.0).clamp(0, 1)


def _neighbours(images: Tensor, positions: tuple[tuple[int, int], ...]) -> Tensor:
    """(positions, n, H, W, c): each pixel's neighbours at these positions of its 3 x 3 window."""
    height, width = images.shape[1:3]
    padded = F.pad(images, (0, 0, 1, 1, 1, 1))
    return torch.stack([padded[:, y : y + height, x : x + width] for y, x in positions])
