"""Other measures, by torchmetrics: FID and KID of what was generated against the references, LPIPS to each reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import MissingFileError, shown
from ..ipadapter_core.packages import load
from ..ipadapter_core.pictures.sheets import square
from .matching import Group
from .reading import opened

# pixels: of the networks' inputs
FID_SIDE, LPIPS_SIDE, BATCH = 299, 256, 16
# of KID's subsets, where there are as many pictures
SUBSET = 1000


def measure(names: Sequence[str], groups: Sequence[Group], device: torch.device) -> dict[str, float]:
    """fid, kid, lpips of groups whose pictures can all be read. Each picture is its central square.

    Raises MissingPackageError, MissingFileError where a network's weights are not there and cannot be fetched.
    """
    return {name: _MEASURES[name](groups, device) for name in names}


def _network(name: str, make: Callable[[], Any], device: torch.device) -> Any:
    try:
        return make().to(device)
    # whatever its downloads raise
    except Exception as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise MissingFileError(
            f"{name} could not be loaded ({reason}). Install what it says is missing, let it fetch its weights once where "
            "there is a network, or leave this measure out."
        ) from error


def _distance(groups: Sequence[Group], device: torch.device, kind: str) -> float:
    count = min(len(groups), sum(len(group.generated) for group in groups))
    make = {
        "fid": lambda: load("torchmetrics.image.fid").FrechetInceptionDistance(normalize=True),
        "kid": lambda: load("torchmetrics.image.kid").KernelInceptionDistance(
            subset_size=min(SUBSET, count), normalize=True
        ),
    }[kind]
    network = _network(kind.upper(), make, device)
    generated = [picture for group in groups for picture in group.generated]
    for pictures, real in (([group.reference for group in groups], True), (generated, False)):
        for batch in _batches(pictures, FID_SIDE, kind.upper()):
            network.update(batch.to(device), real=real)
    result = network.compute()
    return float(result[0] if isinstance(result, tuple) else result)


def _lpips(groups: Sequence[Group], device: torch.device) -> float:
    network = _network("LPIPS", _lpips_network, device)
    pairs = [(picture, group.reference) for group in groups for picture in group.generated]
    sides = (_batches([pair[n] for pair in pairs], LPIPS_SIDE, "LPIPS") for n in (0, 1))
    for made, reference in zip(*sides, strict=True):
        network.update(made.to(device), reference.to(device))
    return float(network.compute())


def _lpips_network() -> Any:
    return load("torchmetrics.image.lpip").LearnedPerceptualImagePatchSimilarity("alex", normalize=True)


_MEASURES: dict[str, Callable[[Sequence[Group], torch.device], float]] = {
    "fid": lambda groups, device: _distance(groups, device, "fid"),
    "kid": lambda groups, device: _distance(groups, device, "kid"),
    "lpips": _lpips,
}


def _batches(pictures: Sequence[Any], side: int, what: str) -> Iterator[Tensor]:
    """(n, 3, side, side) in 0..1."""
    starts = range(0, len(pictures), BATCH)
    for start in tqdm(starts, desc=what, unit="batch", leave=False):
        yield torch.stack([_values(square(opened(each), side)) for each in pictures[start : start + BATCH]])


def _values(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).movedim(-1, 0)
