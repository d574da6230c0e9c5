"""EMBEDS, features of pictures before projection, as the de-facto pack passes them around and stores them (.ipadpt).

Since March 2024: (n, d) or (n, tokens, d) of the positive or of the negative side. Before: both, stacked to (2, n, ...).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....ipadapter_core import values
from ....ipadapter_core.errors import CheckpointError, MismatchError
from ....ipadapter_core.files.writing import replacing
from .combine_features import combine_features, concatenate

SUFFIX = ".ipadpt"
# bytes that a tensor in a file may have beyond its storage
MOST_REPEATED = 64 << 20
# Tokens of CLIP encoders: ViT-B/32, DINOv2-like 14 x 14, ViT-L/14 and larger, 336 pixels, 384 pixels of patch 14.
_TOKENS = {50, 197, 257, 577, 729}


def is_stacked(embeds: Tensor) -> bool:
    """Whether these are of the first generation, positive and negative stacked."""
    if embeds.ndim == 3:
        return embeds.shape[0] == 2 and embeds.shape[1] not in _TOKENS
    return embeds.ndim == 4 and embeds.shape[0] == 2


def combine_embeds(parts: Sequence[Tensor], mode: str, exact: bool = False) -> Tensor:
    """All rows of (n, d) or (n, tokens, d) combined in one of MODES; of (2, n, tokens, d) each side alone."""
    if {part.ndim for part in parts} == {4}:
        return torch.stack([combine_embeds(side, mode, exact) for side in _sides(parts)])
    return combine_features(concatenate(parts), mode, exact)


def batch_embeds(first: Tensor, second: Tensor) -> Tensor:
    """Pictures of `first` and then those of `second`; of the first generation on both sides."""
    if is_stacked(first) and is_stacked(second):
        return torch.stack([concatenate(side) for side in _sides((first, second))])
    return concatenate((first, second))


def _sides(parts: Sequence[Tensor]) -> list[list[Tensor]]:
    """Stacked parts -> [their positive sides, their negative sides]."""
    if any(part.shape[0] != 2 for part in parts):
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise MismatchError(
            f"embeds of shapes {shapes} came; expected a positive and a negative side, (2, n, tokens, d)."
        )
    return [[part[side] for part in parts] for side in (0, 1)]


def save_embeds(embeds: Tensor, path: str | Path) -> None:
    """Write them as the de-facto pack reads them, whole or not at all. Raises WriteError."""
    with replacing(path, RuntimeError) as part, part.open("wb") as file:
        torch.save(embeds.detach().cpu(), file)


def load_embeds(path: str | Path) -> Tensor:
    """Read a file of either generation, fp32 on the CPU; no code in it is run. Raises CheckpointError."""
    name = Path(path).name
    _refuse_compressed(Path(path))
    try:
        with Path(path).open("rb") as file:
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    # a damaged pickle may raise anything
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{name} is not a file of embeds: {reason}. Save them again.") from error
    try:
        _refuse_repeated(found)
        return values.embeds(found, name)
    except MismatchError as error:
        raise CheckpointError(f"{error} IPAdapter Save Embeds writes such files; save them again.") from error


def _refuse_compressed(path: Path) -> None:
    """torch.save never compresses; a small file that expands to gigabytes is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        # of the old layout, or no such file: torch.load reports that
        return
    if compressed:
        raise CheckpointError(
            f"{path.name} is a compressed archive, which torch.save never writes. Save the embeds again."
        )


def _refuse_repeated(found: Any) -> None:
    """Raise MismatchError for a tensor that repeats a little memory over a large shape (a stride of 0)."""
    if not isinstance(found, Tensor) or found.layout is not torch.strided or found.is_meta:
        return
    size = found.numel() * found.element_size()
    if size > max(found.untyped_storage().nbytes(), MOST_REPEATED):
        raise MismatchError(
            f"a tensor of shape {tuple(found.shape)} repeats {found.untyped_storage().nbytes()} bytes to {size >> 20} MB."
        )
