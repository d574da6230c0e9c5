"""Which pictures make which batch: a function of seed and number alone, pictures of one size together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import SettingError
from .draws import order
from .recipe import Recipe

STEP = 64  # pixels; latents of it are 8 wide, which every UNet level halves evenly
Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Frame:
    """How a picture of `own` size meets its bucket: resized to cover it, cut at the centre. All (height, width)."""

    own: Size
    resized: Size
    corner: Size
    bucket: Size


def buckets(side: int, longest: float = 2.0) -> tuple[Size, ...]:
    """Sizes of about side² pixels, in steps of 64, no longer than `longest` times their height or the other way."""
    area, found = side * side, set[Size]()
    for height in range(STEP, math.ceil(side * math.sqrt(longest)) + STEP, STEP):
        width = area // height // STEP * STEP
        if width and max(height / width, width / height) <= longest:
            found |= {(height, width), (width, height)}
    return tuple(sorted(found | {(side, side)}))


def frame(own: Size, choices: Sequence[Size]) -> Frame:
    """The bucket nearest in aspect. As the reference trains where the square is the only one."""
    height, width = own
    bucket = min(choices, key=lambda size: abs(math.log(size[1] / size[0]) - math.log(width / height)))
    scale = max(bucket[0] / height, bucket[1] / width)
    resized = max(bucket[0], round(height * scale)), max(bucket[1], round(width * scale))
    corner = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
    return Frame(own, resized, corner, bucket)


class Plan:
    """Batches of `count` pictures over all processes. sizes: the bucket of every picture.

    An epoch shows every picture once; a bucket's last batch is filled up from its beginning.
    """

    def __init__(self, recipe: Recipe, sizes: Sequence[Size], count: int):
        if not sizes:
            raise SettingError(
                "there is no picture to train on. Look at the list of those left out, and why."
            )
        self.recipe, self.count = recipe, count
        self.members: dict[Size, list[int]] = {}
        for number, size in enumerate(sizes):
            self.members.setdefault(size, []).append(number)
        self.length = sum(math.ceil(len(members) / count) for members in self.members.values())
        self._epoch = lru_cache(maxsize=2)(self._batches)

    def batch(self, number: int) -> list[int]:
        """Pictures of batch 0, 1, ...; all of one size."""
        epoch, place = divmod(number, self.length)
        return self._epoch(epoch)[place]

    def _batches(self, epoch: int) -> list[list[int]]:
        made: list[list[int]] = []
        for part, members in enumerate(self.members.values()):
            shuffled = [members[i] for i in order(self.recipe, epoch * 4096 + part, len(members))]
            while len(shuffled) % self.count:
                shuffled += shuffled[: self.count - len(shuffled) % self.count]
            made += [shuffled[at : at + self.count] for at in range(0, len(shuffled), self.count)]
        return [made[i] for i in order(self.recipe, epoch * 4096 + 4095, len(made))]
