"""Which pictures form which batch: a function of seed and batch number alone; a batch holds pictures of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import SettingError
from .config import TrainingConfig
from .noise import permutation

# pixels; latents of it are 8 wide, which every UNet level halves evenly
STEP = 64
# (height, width) in pixels
Size = tuple[int, int]


@dataclass(frozen=True)
class CropInfo:
    """How a picture is fitted to its bucket: resized to cover it, then cropped at the centre. All (height, width)."""

    original: Size
    resized: Size
    top_left: Size
    bucket: Size


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


class BatchSampler:
    """Batches of `count` pictures over all processes. sizes: the bucket of every picture.

    An epoch shows every picture once; a bucket's last batch is filled up from its beginning.
    """

    def __init__(self, config: TrainingConfig, sizes: Sequence[Size], count: int):
        if not sizes:
            raise SettingError(
                "there is no picture to train on. Look at the list of those left out, and why."
            )
        self.config, self.count = config, count
        self.members: dict[Size, list[int]] = {}
        for number, size in enumerate(sizes):
            self.members.setdefault(size, []).append(number)
        self.length = sum(math.ceil(len(members) / count) for members in self.members.values())
        self._epoch = lru_cache(maxsize=2)(self._batches)

    def batch(self, number: int) -> list[int]:
        """Pictures of batch 0, 1, ...; all of one size."""
        epoch, index = divmod(number, self.length)
        return self._epoch(epoch)[index]

    def _batches(self, epoch: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for part, members in enumerate(self.members.values()):
            shuffled = [members[i] for i in permutation(self.config, epoch * 4096 + part, len(members))]
            while len(shuffled) % self.count:
                shuffled += shuffled[: self.count - len(shuffled) % self.count]
            batches += [shuffled[at : at + self.count] for at in range(0, len(shuffled), self.count)]
        return [batches[i] for i in permutation(self.config, epoch * 4096 + 4095, len(batches))]
