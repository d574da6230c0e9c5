"""What a weight multiplies: V' as in eq. (8), or also K', as users know it from the de-facto pack."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from torch import Tensor

Weight = float | Tensor  # λ, or (rows, 1, 1): one for each row
REFERENCE_WIDTH = 1280  # inner width at which the penalised scalings have full weight


class Scaling(str, Enum):
    """What a weight multiplies, and whether with the penalty width / 1280 of narrow sites."""

    V_ONLY = "V only"
    KEYS_TOO = "K+V"
    PENALTY = "K+V w/ C penalty"
    MEAN = "K+mean(V) w/ C penalty"


Rule = Callable[[Tensor, Tensor, Weight, int], tuple[Tensor, Tensor]]


def _penalised(weight: Weight, width: int) -> Weight:
    return weight * (width / REFERENCE_WIDTH)


def _mean_weighted(
    keys: Tensor, values: Tensor, weight: Weight, tokens_per_image: int
) -> tuple[Tensor, Tensor]:
    """K scaled; of V only its mean over the tokens of each image, the differences from it stay."""
    p = _penalised(weight, keys.shape[-1])
    images = values.unflatten(1, (-1, tokens_per_image))  # (rows, images, tokens, width)
    mean = images.mean(2, keepdim=True).expand_as(images).flatten(1, 2)
    return keys * p, (values - mean) + mean * p


_RULES: dict[Scaling, Rule] = {
    Scaling.V_ONLY: lambda keys, values, weight, _: (keys, values * weight),
    Scaling.KEYS_TOO: lambda keys, values, weight, _: (keys * weight, values * weight),
    Scaling.PENALTY: lambda keys, values, weight, _: (
        keys * _penalised(weight, keys.shape[-1]),
        values * _penalised(weight, keys.shape[-1]),
    ),
    Scaling.MEAN: _mean_weighted,
}


def scaled(
    keys: Tensor, values: Tensor, weight: Weight, scaling: Scaling, tokens_per_image: int
) -> tuple[Tensor, Tensor]:
    """K', V' (rows, T, width) with the weight in them; T is a multiple of tokens_per_image."""
    return _RULES[scaling](keys, values, weight, tokens_per_image)
