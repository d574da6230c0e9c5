"""Pictures of noise for the negative side: the reference with its content destroyed.

Every picture has a generator of its own, seeded from the picture; the global random state does not change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ....ipadapter_core.errors import SettingError
from ....ipadapter_core.pictures.preprocessing import rgb
from .crop import centre_square, pixels, planes, resize
from .warp import elastic_transform, gaussian_blur

SIZE = 224
_SEED_RANGE = 1_000_000_007
# of the elastic transform
_ALPHA, _SIGMA = 75.0, 3.5


def make_noise(kind: str, strength: float, blur: int = 0, images: Tensor | None = None) -> Tensor:
    """Noise of one of KINDS over pictures (n, H, W, c) in 0..1, or over black: (n, 224, 224, 3) in 0..1.

    strength 0..1; blur: size of a Gaussian in pixels, 0 for none. The same picture gives the same noise. Raises
    SettingError for an unknown kind.
    """
    if kind not in _KINDS:
        raise SettingError(f"unknown noise '{kind}'; choose one of: {', '.join(KINDS)}.")
    squares = torch.zeros(1, SIZE, SIZE, 3) if images is None else _squares(images)
    generator = Generator().manual_seed(int(squares.sum()) % _SEED_RANGE)
    made = _KINDS[kind](squares, strength, generator).clamp(0, 1)
    return pixels(gaussian_blur(planes(made), blur | 1)) if blur > 0 else made


def _squares(images: Tensor) -> Tensor:
    """(n, H, W, c) -> the middle squares (n, 224, 224, 3), with the memory format that torchvision gives."""
    squares = centre_square(planes(rgb(images)).float().cpu())
    if squares.shape[-2:] == (SIZE, SIZE):
        return pixels(squares)
    if len(squares) == 1 and not squares.is_contiguous(memory_format=torch.channels_last):
        # a single picture cut at its sides is resized by plane
        squares = squares.contiguous()
    return pixels(resize(squares, SIZE, SIZE))


# Drawn in the order of the picture in memory, as torch.rand_like does.
def _uniform(like: Tensor, generator: Generator) -> Tensor:
    return torch.empty_like(like).uniform_(generator=generator)


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)


def _fade(x: Tensor, strength: float, generator: Generator) -> Tensor:
    return x * (1 - strength) + _uniform(x, generator) * strength


def _dissolve(x: Tensor, strength: float, generator: Generator) -> Tensor:
    gone = (_uniform(x, generator) < strength).to(x)
    return x * (1 - gone) + _uniform(x, generator) * gone


def _gaussian(x: Tensor, strength: float, generator: Generator) -> Tensor:
    return x + _normal(x, generator) * strength


def _shuffle(x: Tensor, strength: float, generator: Generator) -> Tensor:
    moved = _scattered(x, _SIGMA * (1 - strength), generator)
    grain = _normal(moved, generator) * (strength * 0.75)
    return moved * (1 - grain) + grain


def _scattered(x: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Warped and rotated by 180 degrees."""
    moved = elastic_transform(planes(x), _ALPHA, sigma, generator)
    # torchvision's flips draw a number each, even at a probability of 1
    torch.rand(2, generator=generator)
    return pixels(moved.flip(-2, -1))


_KINDS: dict[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "fade": _fade,
    "dissolve": _dissolve,
    "gaussian": _gaussian,
    "shuffle": _shuffle,
}
KINDS = tuple(_KINDS)


def first_generation_noise(images: Tensor, noise: float) -> Tensor:
    """The negative picture of the first generation (until 2024-02), for pictures (n, H, W, c) and noise 0..1.

    (n, 224, 224, 3): warped, upside down, and grainy, the more so the less noise is asked for; not clipped. Seed 0.
    """
    generator = Generator().manual_seed(0)
    moved = _scattered(_squares(images), _SIGMA * noise, generator)
    return moved + (0.25 * (1 - noise) + 0.05) * _normal(moved, generator)
