"""Which pictures form which batch: a function of seed and batch number alone; a batch holds pictures of one size."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError
from .config import TrainingConfig
from .noise import make_generator, permutation

# pixels; latents of it are 8 wide, which every UNet level halves evenly
STEP = 64
# purposes of a generator
_PLACE, _SHARE = 4, 5
# (height, width) in pixels
Size = tuple[int, int]


@dataclass(frozen=True)
class CropInfo:
    """How a picture is fitted to its bucket: resized to cover it, then cropped. All (height, width)."""

    original: Size
    resized: Size
    top_left: Size
    bucket: Size

    def at_place(self, place: int, places: int, seed: int) -> CropInfo:
        """Cropped at one of so many random places, which depend on the seed and the sizes alone; of one, at the centre."""
        if places == 1:
            return self
        number = place * 1_000_003 + self.resized[0] * 4099 + self.resized[1]
        generator = make_generator(seed, _PLACE, number)
        most = (self.resized[n] - self.bucket[n] for n in (0, 1))
        top, left = (int(torch.randint(each + 1, (1,), generator=generator)) for each in most)
        return replace(self, top_left=(top, left))


def buckets(side: int, longest: float = 2.0) -> tuple[Size, ...]:
    """Sizes of about side² pixels, in steps of 64, with aspects from 1 / `longest` to `longest`."""
    area, found = side * side, set[Size]()
    for height in range(STEP, math.ceil(side * math.sqrt(longest)) + STEP, STEP):
        width = area // height // STEP * STEP
        if width and max(height / width, width / height) <= longest:
            found |= {(height, width), (width, height)}
    return tuple(sorted(found | {(side, side)}))


def crop_info(original: Size, choices: Sequence[Size]) -> CropInfo:
    """The crop to the bucket nearest in aspect. As the reference trains where the square is the only one."""
    height, width = original
    bucket = min(choices, key=lambda size: abs(math.log(size[1] / size[0]) - math.log(width / height)))
    scale = max(bucket[0] / height, bucket[1] / width)
    resized = max(bucket[0], round(height * scale)), max(bucket[1], round(width * scale))
    top_left = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
    return CropInfo(original, resized, top_left, bucket)


class Crops(Sequence[CropInfo]):
    """The crop of every picture, worked out when it is asked for: pictures of one size have one crop."""

    def __init__(self, sizes: Sequence[Size], choices: Sequence[Size]):
        self._sizes = sizes
        self._crop_of = lru_cache(maxsize=1 << 16)(partial(crop_info, choices=choices))

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: Any) -> Any:
        return self._crop_of(self._sizes[number])


class BatchSampler:
    """Batches of `count` pictures over all processes. sizes: the bucket of every picture. shares: how often each is shown
    in an epoch, once without; of a fraction another part of the pictures in every epoch.

    A bucket's last batch is filled up from its beginning. A batch is found in constant time.
    """

    def __init__(
        self, config: TrainingConfig, sizes: Sequence[Size], count: int, shares: Sequence[float] = ()
    ):
        if not sizes:
            raise SettingError(
                "there is no picture to train on. Look at the list of those left out, and why."
            )
        self.config, self.count = config, count
        members: dict[Size, dict[float, array[int]]] = {}
        for number, size in enumerate(sizes):
            share = shares[number] if shares else 1.0
            members.setdefault(size, {}).setdefault(share, array("q")).append(number)
        self._members = [
            {share: torch.tensor(part) for share, part in parts.items()} for parts in members.values()
        ]
        lengths = [sum(round(s * len(p)) for s, p in parts.items()) for parts in self._members]
        # after each bucket: how many batches there are up to it
        self._ends = list(accumulate(math.ceil(length / count) for length in lengths))
        self.length = self._ends[-1]
        if not self.length:
            raise SettingError("the data sets' shares leave no picture for an epoch. Give larger ones.")
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, number: int) -> list[int]:
        """Pictures of batch 0, 1, ...; all of one size."""
        epoch, index = divmod(number, self.length)
        order, buckets = self._epoch(epoch)
        batch = int(order[index])
        bucket = bisect_right(self._ends, batch)
        start = (batch - (self._ends[bucket - 1] if bucket else 0)) * self.count
        return buckets[bucket][start : start + self.count].tolist()

    def _shuffled(self, epoch: int) -> tuple[Tensor, list[Tensor]]:
        """The order of an epoch's batches, and each bucket's pictures in whole batches."""
        buckets: list[Tensor] = []
        for part, members in enumerate(self._members):
            shown = torch.cat([self._shown(epoch, share, of) for share, of in members.items()])
            shuffled = shown[permutation(self.config, epoch * 4096 + part, len(shown))]
            while len(shuffled) % self.count:
                shuffled = torch.cat((shuffled, shuffled[: self.count - len(shuffled) % self.count]))
            buckets.append(shuffled)
        return permutation(self.config, epoch * 4096 + 4095, self.length), buckets

    def _shown(self, epoch: int, share: float, members: Tensor) -> Tensor:
        """Pictures of one share, as often as an epoch shows them."""
        whole = int(share)
        rest = round(share * len(members)) - whole * len(members)
        if not rest:
            return members.repeat(whole)
        generator = make_generator(self.config.seed, _SHARE, epoch)
        drawn = members[torch.randperm(len(members), generator=generator)[:rest]]
        return torch.cat((members.repeat(whole), drawn))
