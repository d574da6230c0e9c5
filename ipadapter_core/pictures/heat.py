"""Heat maps as pictures: a map of numbers in colours over the picture that it belongs to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# From dark and cold to bright and hot, evenly growing in lightness, so that it reads in grey and without red or green too.
_COLOURS = (
    (0.03, 0.02, 0.12),
    (0.33, 0.06, 0.43),
    (0.73, 0.21, 0.33),
    (0.97, 0.55, 0.10),
    (0.99, 0.98, 0.65),
)


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """(n, h, w) -> (n, height, width), smooth."""
    return F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def coloured(maps: Tensor) -> Tensor:
    """(n, h, w) in 0..1 -> (n, h, w, 3)."""
    table = torch.tensor(_COLOURS)
    at = maps.clamp(0, 1) * (len(table) - 1)
    low = at.floor().clamp(max=len(table) - 2).long()
    return torch.lerp(table[low], table[low + 1], (at - low)[..., None])


def over(images: Tensor, maps: Tensor, opacity: float) -> Tensor:
    """Maps (n, h, w) in 0..1 in colours over pictures (n, h, w, 3), which stay visible beneath as shades of grey."""
    grey = images[..., :3].mean(-1, keepdim=True).expand(-1, -1, -1, 3)
    under = torch.lerp(images[..., :3], grey, opacity)
    colours = coloured(maps)
    return torch.lerp(under, colours * (0.6 + 0.4 * grey), opacity).clamp(0, 1)
