"""EMBEDS, features of pictures before projection, as the de-facto pack hands them on and stores them (.ipadpt).

Since March 2024: (n, d) or (n, tokens, d) of the positive or of the negative side. Before: both, stacked to (2, n, ...).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .blending import blend, joined
from .errors import CheckpointError, ImagePromptError, MismatchError

SUFFIX = ".ipadpt"
# Tokens of CLIP encoders: ViT-B/32, DINOv2-like 14 x 14, ViT-L/14 and larger, 336 pixels, 384 pixels of patch 14.
_TOKENS = {50, 197, 257, 577, 729}


def is_stacked(embeds: Tensor) -> bool:
    """Whether these are of the first generation, positive and negative stacked."""
    if embeds.ndim == 3:
        return embeds.shape[0] == 2 and embeds.shape[1] not in _TOKENS
    return embeds.ndim == 4 and embeds.shape[0] == 2


def combine_embeds(parts: Sequence[Tensor], mode: str, exact: bool = False) -> Tensor:
    """All rows of (n, d) or (n, tokens, d) blended by one of blending.MODES; of (2, n, tokens, d) each side by itself."""
    if {part.ndim for part in parts} == {4}:
        return torch.stack([combine_embeds(side, mode, exact) for side in _sides(parts)])
    return blend(joined(parts), mode, exact)


def batch_embeds(first: Tensor, second: Tensor) -> Tensor:
    """Pictures of `first` and then those of `second`; of the first generation on both sides."""
    if is_stacked(first) and is_stacked(second):
        return torch.stack([joined(side) for side in _sides((first, second))])
    return joined((first, second))


def _sides(parts: Sequence[Tensor]) -> list[list[Tensor]]:
    """Stacked parts -> [their positive sides, their negative sides]."""
    if any(part.shape[0] != 2 for part in parts):
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise MismatchError(
            f"embeds of shapes {shapes} came; expected a positive and a negative side, (2, n, tokens, d)."
        )
    return [[part[side] for part in parts] for side in (0, 1)]


def save_embeds(embeds: Tensor, path: str | Path) -> None:
    """Write them as the de-facto pack reads them."""
    try:
        torch.save(embeds.detach().cpu(), path)
    except (OSError, RuntimeError) as error:
        raise ImagePromptError(
            f"{path} could not be written: {error}. Check the folder and its free space."
        ) from error


def load_embeds(path: str | Path) -> Tensor:
    """Read a file of either generation, fp32 on the CPU; nothing in it is run. Raises CheckpointError."""
    name = Path(path).name
    try:
        embeds = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{name} is not a file of embeds: {reason}. Save them again.") from error
    if not (isinstance(embeds, Tensor) and embeds.is_floating_point() and 2 <= embeds.ndim <= 4):
        what = (
            f"a tensor of shape {tuple(embeds.shape)}"
            if isinstance(embeds, Tensor)
            else type(embeds).__name__
        )
        raise CheckpointError(
            f"{name} holds {what}; expected features (n, width) or (n, tokens, width), as IPAdapter Save Embeds writes them."
        )
    return embeds.float()
