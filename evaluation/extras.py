"""Other measures, by torchmetrics: FID and KID of what was generated against the references, LPIPS to each reference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import MissingFileError, MissingPackageError, shown
from ..ipadapter_core.packages import load
from ..ipadapter_core.pictures.sheets import square
from .matching import Group
from .reading import opened

log = logging.getLogger("image_prompt.evaluation")
# pixels: of the networks' inputs
FID_SIDE, LPIPS_SIDE, BATCH = 299, 256, 16
# of KID's subsets, where there are as many pictures, and what they are drawn by
SUBSET, SEED = 1000, 0
# that a covariance and KID's estimate need
FEWEST = 2


class Extras:
    """fid, kid, lpips by name. Their networks are loaded here, before any picture is read, and once for all methods.

    Raises MissingPackageError, MissingFileError where a network's weights are not there and cannot be fetched.
    """

    def __init__(self, names: Sequence[str], device: torch.device):
        self._networks = {name: _network(name.upper(), _MAKE[name], device) for name in dict.fromkeys(names)}

    def measure(self, groups: Sequence[Group]) -> dict[str, float]:
        """Of groups whose pictures can all be read; each picture is its central square. Without those that need more
        pictures than there are."""
        found = {}
        for name, network in self._networks.items():
            network.reset()
            value = _lpips(network, groups) if name == "lpips" else _distance(network, groups, name)
            if value is not None:
                found[name] = value
        return found


def _network(name: str, make: Callable[[], Any], device: torch.device) -> Any:
    try:
        return make().to(device)
    except MissingPackageError:
        raise
    # whatever its downloads raise
    except Exception as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        cache = shown(Path(torch.hub.get_dir()) / "checkpoints")
        raise MissingFileError(
            f"{name} could not be loaded ({reason}). Install what it says is missing, or run this once where there is a "
            f"network, so that its weights come into {cache} (delete a damaged file there); or leave this measure out."
        ) from error


def _distance(network: Any, groups: Sequence[Group], name: str) -> float | None:
    references = [group.reference for group in groups]
    generated = [picture for group in groups for picture in group.generated]
    count = min(len(references), len(generated))
    if count < FEWEST:
        log.warning("%s compares two sets, and one has %d picture; it is left out", name.upper(), count)
        return None
    # FID has no subsets
    network.subset_size = min(SUBSET, count)
    for pictures, real in ((references, True), (generated, False)):
        for batch in _batches(pictures, FID_SIDE, name.upper()):
            network.update(batch.to(network.device), real=real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        result = network.compute()
    return float(result[0] if isinstance(result, tuple) else result)


def _lpips(network: Any, groups: Sequence[Group]) -> float:
    # pair after pair; a batch is of an even number
    pairs = [each for group in groups for picture in group.generated for each in (picture, group.reference)]
    for batch in _batches(pairs, LPIPS_SIDE, "LPIPS"):
        network.update(batch[::2].to(network.device), batch[1::2].to(network.device))
    return float(network.compute())


_MAKE: dict[str, Callable[[], Any]] = {
    "fid": lambda: load("torchmetrics.image.fid").FrechetInceptionDistance(normalize=True),
    "kid": lambda: load("torchmetrics.image.kid").KernelInceptionDistance(normalize=True),
    "lpips": lambda: load("torchmetrics.image.lpip").LearnedPerceptualImagePatchSimilarity(
        "alex", normalize=True
    ),
}


def _batches(pictures: Sequence[Any], side: int, what: str) -> Iterator[Tensor]:
    """(n, 3, side, side) in 0..1."""
    starts = range(0, len(pictures), BATCH)
    for start in tqdm(starts, desc=what, unit="batch", leave=False):
        yield torch.stack([_values(square(opened(each), side)) for each in pictures[start : start + BATCH]])


def _values(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).movedim(-1, 0)
