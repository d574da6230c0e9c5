"""The matrices of an adapter whose K' and V' follow from the timestep: those of all sites in one tensor each.

As InstantX has them for SD3.5 (pipeline_stable_diffusion_3_ipa.py, JointIPAttnProcessor). A step computes them for all sites
at once, so the sites share its few operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CheckpointError, shown

_EPS = 1e-6
# Of a site, by the name in the file.
PARTS = (
    *(f"norm_ip.linear.{part}" for part in ("weight", "bias")),
    *(f"{name}.weight" for name in ("to_k_ip", "to_v_ip", "norm_q", "norm_k", "norm_ip_k")),
)


class JointPairs(nn.Module):
    """Parameters (sites, …), named as a site's in the file with '_' for '.'."""

    norm_ip_linear_weight: Tensor
    norm_ip_linear_bias: Tensor
    to_k_ip_weight: Tensor
    to_v_ip_weight: Tensor
    norm_q_weight: Tensor
    norm_k_weight: Tensor
    norm_ip_k_weight: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], sites: int, name: str, **placement: Any):
        """shapes: of one site, by `PARTS`. name: of the adapter. Raises CheckpointError where one is missing."""
        super().__init__()
        _require((part for part in PARTS if part not in shapes), name)
        for part in PARTS:
            tensor = torch.empty(sites, *shapes[part], **placement)
            self.register_parameter(_own(part), nn.Parameter(tensor, requires_grad=False))

    def norms(self) -> tuple[Tensor, Tensor]:
        """Scales (sites, head dimension) of q and of the picture's own keys."""
        return self.norm_q_weight, self.norm_k_weight

    def keys_values(self, tokens: Tensor, time: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """K' and V' of all sites (sites, n, t, width).

        tokens (n, t, width) and the embedding (1 or n, time width) of their timesteps. dtype: of the model. Where it has
        two bytes and the file too, the file's is that of the large products, so that nothing of them is converted in each
        step.
        """
        n, t, width = tokens.shape
        halves = dtype.itemsize == self.to_k_ip_weight.dtype.itemsize == 2
        dtype = self.to_k_ip_weight.dtype if halves else tokens.dtype
        weight, bias = (
            p.to(dtype).flatten(0, 1) for p in (self.norm_ip_linear_weight, self.norm_ip_linear_bias)
        )
        moved = F.linear(F.silu(time).to(dtype), weight, bias).unflatten(-1, (-1, 1, 2 * width))
        shift, scale = moved.to(tokens).transpose(0, 1).chunk(2, -1)  # (sites, 1 or n, 1, width)
        x = F.layer_norm(tokens, (width,), eps=_EPS)
        x = torch.addcmul(shift, x, 1 + scale).to(dtype).flatten(1, 2)  # (sites, n · t, width)
        keys, values = (
            torch.bmm(x, matrices.to(x).mT).unflatten(1, (n, t))
            for matrices in (self.to_k_ip_weight, self.to_v_ip_weight)
        )
        own = self.norm_ip_k_weight.to(tokens)
        heads = keys.to(tokens).unflatten(-1, (-1, own.shape[-1]))  # (sites, n, t, heads, d)
        keys = F.rms_norm(heads, heads.shape[-1:], eps=_EPS) * own[:, None, None, None]
        return keys.flatten(-2), values

    def by_site(self, sites: Sequence[int]) -> dict[str, Tensor]:
        """Views of the parameters by their keys in the file. sites: their numbers there."""
        return {
            f"{number}.{part}": getattr(self, _own(part))[index]
            for index, number in enumerate(sites)
            for part in PARTS
        }


def _own(part: str) -> str:
    return part.replace(".", "_")


def stacked(tensors: Mapping[str, Tensor], sites: Sequence[int], name: str) -> dict[str, Tensor]:
    """The parameters of `JointPairs` of a file's tensors. Raises CheckpointError where one is missing or odd."""
    _require((key for n in sites for part in PARTS if (key := f"{n}.{part}") not in tensors), name)
    made: dict[str, Tensor] = {}
    for part in PARTS:
        of_sites = [tensors[f"{n}.{part}"] for n in sites]
        odd = next(
            (n for n, tensor in zip(sites, of_sites, strict=True) if tensor.shape != of_sites[0].shape), None
        )
        if odd is not None:
            raise CheckpointError(
                f"{shown(name)}: {odd}.{part} has another shape than that of the other sites. Download the file again."
            )
        made[_own(part)] = torch.stack(of_sites)
    return made


def _require(missing: Iterable[str], name: str) -> None:
    keys = [*missing]
    if keys:
        raise CheckpointError(
            f"{shown(name)}: {len(keys)} tensors are missing: {', '.join(keys[:4])}. Download the file again."
        )
