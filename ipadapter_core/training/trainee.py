"""The adapter that is trained: made new from the model's own text attention, or taken from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..adapter import Adapter, KeysValues, SiteMatrices
from ..checkpoint import Checkpoint
from ..errors import MismatchError
from ..families.family import Family
from ..families.matching import match_sites
from ..families.site import Site
from ..families.table import family_of
from ..features import Features
from ..projections.linear import ImageProjection
from ..projections.resampler import DIM_HEAD, PerceiverSizes, Resampler
from ..spec import Variant
from .recipe import Recipe

DEPTH = 4  # of the released resamplers; their feed-forward is four times as wide


class Trainee(nn.Module):
    """An adapter with gradients. Calling it gives K' and V' of every site, so that one call holds all parameters."""

    def __init__(self, adapter: Adapter):
        super().__init__()
        self.adapter = adapter.requires_grad_(True)

    def forward(self, features: Tensor) -> KeysValues:
        """features (n, width) or (n, encoder tokens, width) -> per site K', V' (n, tokens, width), file order.

        In full precision whatever the UNet computes in: it costs little, and it is what learns.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self._pairs(features)

    def _pairs(self, features: Tensor) -> KeysValues:
        adapter = self.adapter
        tokens = adapter.image_proj.tokens_of(Features(features))
        sites = (cast("SiteMatrices", adapter.ip_adapter[str(key)]) for key in adapter.spec.site_keys)
        return tuple((site.to_k_ip(tokens), site.to_v_ip(tokens)) for site in sites)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def checkpoint(self, name: str) -> Checkpoint:
        """A copy of the weights in the released layout, fp32 on the CPU."""
        return to_checkpoint(name, self.adapter.state_dict())


def to_checkpoint(name: str, state: dict[str, Tensor]) -> Checkpoint:
    """From a state_dict of an Adapter, keys prefixed with the role."""
    tensors = {key: tensor.detach().to("cpu", torch.float32, copy=True) for key, tensor in state.items()}
    parts = ({k.removeprefix(p): t for k, t in tensors.items() if k.startswith(p)} for p in _PREFIXES)
    return Checkpoint(name, *parts)


_PREFIXES = ("image_proj.", "ip_adapter.")


def new_trainee(recipe: Recipe, unet: nn.Module, sites: Sequence[Site], feature_width: int) -> Trainee:
    """W'k and W'v are the UNet's own Wk and Wv (eq. 4); the projection starts at random by the recipe's seed."""
    family = family_of(sites)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        projection = _projection(recipe, feature_width, family)
    matrices: dict[str, Tensor] = {}
    for number, site in enumerate(sites):
        start = family.architecture.text_matrices(unet, site)
        for role, weight in zip("kv", start, strict=True):
            matrices[f"{family.architecture.file_number(number)}.to_{role}_ip.weight"] = _own(weight)
    file = Checkpoint(f"new {recipe.kind.value} adapter", projection.state_dict(), matrices)
    return Trainee(Adapter(file, variant=recipe.kind).load_checkpoint(file))


def trainee_from(file: Checkpoint, recipe: Recipe, sites: tuple[Site, ...]) -> Trainee:
    """Goes on from an adapter file. Raises MismatchError if it is of another kind, size or family than the recipe."""
    own = Checkpoint(
        file.name, *({k: _own(t) for k, t in part.items()} for part in (file.image_proj, file.ip_adapter))
    )
    adapter = Adapter(own)
    if (adapter.spec.variant, adapter.spec.tokens) != (recipe.kind, recipe.token_count):
        raise MismatchError(
            f"{file.name} is a {adapter.spec.variant.value} adapter of {adapter.spec.tokens} tokens, but the recipe trains "
            f"{recipe.kind.value} with {recipe.token_count}. Set kind and tokens to those of the file, or start anew."
        )
    match_sites(adapter.spec, file.name, sites)
    return Trainee(adapter.load_checkpoint(own))


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _projection(recipe: Recipe, feature_width: int, family: Family) -> nn.Module:
    context_width = family.context_width
    if recipe.kind is Variant.BASE:
        return ImageProjection(feature_width, recipe.token_count, context_width)
    width = family.resampler_width or context_width
    sizes = PerceiverSizes(feature_width, width, context_width, max(1, width // DIM_HEAD), DEPTH, 4 * width)
    made = Resampler(sizes, recipe.token_count)
    nn.init.normal_(made.latents, std=width**-0.5)
    return made
