"""All that is known of a family of base models, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from .site import Exchanged, Site

Counts = tuple[int, ...]
BlockFactors = Mapping[str, float]  # by label; blocks that are not named have 0


@dataclass(frozen=True)
class Architecture:
    """What the families of one kind of network share.

    find_sites: of a network, in the order of released files; none where it is of another architecture. file_number: in a
    file's keys, of the n-th site. positions: where the pairs of released adapters belong, as (label, depth), by their
    count: for networks that lack some of these sites. text_matrices: copies of a site's Wk and Wv (width, context_width),
    from which an adapter's training starts; None where it starts otherwise. token_grid: (h, w) of a site's image queries
    from their number and the latent's (H, W). unnamed: a family that is in no row of the table, from its context width
    and the numbers of its sites, by stage where they are known. like: the architecture whose adapters it takes,
    and where they enter it as they do there. stages: of its sites. file_prefix: in a file's keys, before the number of a
    site, where adapters are of this pack's own layout.
    """

    name: str
    find_sites: Callable[[nn.Module, Exchanged], tuple[Site, ...]]
    file_number: Callable[[int], int]
    positions: Mapping[int, Sequence[tuple[str, int]]]
    text_matrices: Callable[[nn.Module, Site], tuple[Tensor, Tensor]] | None
    token_grid: Callable[[int, int, int], tuple[int, int]]
    unnamed: Callable[[int, Counts], Family]
    like: str = ""
    stages: tuple[str, ...] = ("input", "middle", "output")
    file_prefix: str = ""

    @property
    def adapters_of(self) -> str:
        """Name of the architecture whose adapters it takes."""
        return self.like or self.name


@dataclass(frozen=True)
class Family:
    """One row of the table.

    context_width, site_count, by_stage: what identifies it; by_stage where the number of all sites would not do. like: the
    family whose adapters steer it, since it has a part of that one's sites. projects_context: whether the model projects
    its text before the sites read it (encoder_hid_proj). style, composition, strong_style: factors of the blocks that are
    known to carry them; empty where none is known. face_crop: side in pixels of the aligned face that the encoder was
    shown. resampler_width: inner width of released resamplers, context_width where it is 0. learns_in_bf16: whether
    gradients through it keep 0.999 of their direction. caution: what to know of adapters on it, for people.
    experimental: where style and composition are from, if nobody has measured them with adapters. released: whether anybody
    released an adapter for it.
    """

    name: str
    architecture: Architecture
    context_width: int
    site_count: int
    like: str = ""
    projects_context: bool = False
    style: BlockFactors = field(default_factory=dict[str, float])
    composition: BlockFactors = field(default_factory=dict[str, float])
    strong_style: BlockFactors = field(default_factory=dict[str, float])
    face_crop: int = 224
    resampler_width: int = 0
    learns_in_bf16: bool = True
    caution: str = ""
    experimental: str = ""
    by_stage: Counts = ()
    released: bool = True

    @property
    def adapters_of(self) -> str:
        """Name of the family whose adapters it takes."""
        return self.like or self.name


PATCH = 2  # side of a transformer's token in the latent


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """(h, w) of the picture's own tokens in a transformer's latent of (height, width), whatever stands behind them."""
    return -(-height // PATCH), -(-width // PATCH)
