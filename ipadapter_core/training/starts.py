"""What a new adapter for a transformer starts from, as its authors' code makes it.

XLabs: K' and V' of zeros (x-flux, src/flux/modules/layers.py, IPDoubleStreamBlockProcessor), so that the first steps leave
the model as it is. InstantX published no trainer: what the constructors of its published classes make stands here, numbers
at random in the linear layers and ones in the norms (attention_processor.py of FLUX.1-dev-IP-Adapter; models/resampler.py
and pipeline_stable_diffusion_3_ipa.py of SD3.5-Large-IP-Adapter).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..families.family import Family
from ..families.flux import DOUBLE
from ..families.sd3 import SD3
from ..families.site import Site
from ..families.table import family_of
from ..projections.linear import ImageProjection
from ..projections.pooled import PooledProjection
from ..projections.resampler import DIM_HEAD, PerceiverSizes
from ..projections.timed import TimeResampler
from ..variant import Variant
from .config import TrainingConfig
from .kinds import token_count

# of the released resamplers; their feed-forward is four times as wide
DEPTH = 4
# cosines and sines of a timestep
_WAVES = 320
# tensors of the two roles, by the keys of a file
Parts = tuple[dict[str, Tensor], dict[str, Tensor]]


def perceiver_sizes(feature_width: int, width: int, token_width: int) -> PerceiverSizes:
    """As released. width: inner width, of which each head has 64."""
    return PerceiverSizes(feature_width, width, token_width, max(1, width // DIM_HEAD), DEPTH, 4 * width)


def start_on_transformer(
    config: TrainingConfig, network: nn.Module, sites: Sequence[Site], feature_width: int
) -> Parts:
    """Tensors of image_proj and ip_adapter. Random ones come from torch's own generator."""
    family = family_of(sites)
    tokens = token_count(config, family) or 0
    if family.architecture.adapters_of == SD3.name:
        return _instantx_of_sd3(family, sites, feature_width, tokens)
    token_width = _text_width(network)
    if config.kind is Variant.XLABS:
        acting = [site for site in sites if site.stage == DOUBLE]
        zeros = {key: torch.zeros(shape) for key, shape in _xlabs_shapes(acting, token_width).items()}
        return ImageProjection(feature_width, tokens, token_width).state_dict(), zeros
    projection = PooledProjection(feature_width, 2 * feature_width, tokens, token_width)
    pairs = {
        f"{number}.to_{role}_ip.weight": nn.Linear(token_width, site.width, bias=False).weight.detach()
        for number, site in enumerate(sites)
        for role in "kv"
    }
    return projection.state_dict(), pairs


def _text_width(network: Any) -> int:
    """Of the model's text, 4096 of Flux.1: that of released adapters' tokens too."""
    return network.txt_in.in_features


def _xlabs_shapes(sites: Sequence[Site], token_width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, site in enumerate(sites):
        for role in "kv":
            shapes[f"{number}.to_{role}_ip.weight"] = (site.width, token_width)
            shapes[f"{number}.to_{role}_ip.bias"] = (site.width,)
    return shapes


def _instantx_of_sd3(family: Family, sites: Sequence[Site], feature_width: int, tokens: int) -> Parts:
    site = sites[0]
    width = family.resampler_width or site.width
    resampler = TimeResampler(perceiver_sizes(feature_width, width, site.width), tokens, _WAVES)
    nn.init.normal_(resampler.latents, std=width**-0.5)
    pairs: dict[str, Tensor] = {}
    for number, each in enumerate(sites):
        moves = nn.Linear(width, 2 * each.width)
        made = {"norm_ip.linear.weight": moves.weight, "norm_ip.linear.bias": moves.bias}
        for role in "kv":
            made[f"to_{role}_ip.weight"] = nn.Linear(each.width, each.width, bias=False).weight
        for norm in ("norm_q", "norm_k", "norm_ip_k"):
            made[f"{norm}.weight"] = torch.ones(each.width // each.heads)
        pairs |= {f"{number}.{name}": tensor.detach() for name, tensor in made.items()}
    return resampler.state_dict(), pairs
