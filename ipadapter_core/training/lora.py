"""The LoRA that FaceID adapters are trained with: q, k, v and out of every attention of the UNet, self-attention too.

As in attention_processor_faceid.py of the published code: up(down(x)) is added with scale 1, and no alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..families.site import Site
from ..families.table import family_of
from ..lora import MODULES, attentions_of
from .config import TrainingConfig
from .noise import make_generator

# purpose of a generator
_START = 3


class LoraLayer(nn.Module):
    """up(down(x)), which starts as nothing: down is normal with deviation 1 / rank, up is zero."""

    def __init__(self, width: int, out: int, rank: int, generator: torch.Generator):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, out, bias=False)
        with torch.no_grad():
            self.down.weight.copy_(torch.randn(rank, width, generator=generator) / rank)
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., out), in the dtype that the layer beside it computes in."""
        return F.linear(F.linear(x, self.down.weight.to(x.dtype)), self.up.weight.to(x.dtype))


class TrainableLora(nn.ModuleDict):
    """A LoRA with gradients. Its state_dict has the keys of released adapters: '<attention>.to_q_lora.down.weight'.

    paths: of the attentions in the UNet, by their numbers there.
    """

    def __init__(self, config: TrainingConfig, sites: Sequence[Site]):
        super().__init__()
        generator = make_generator(config.seed, _START, 0)
        file_number = family_of(sites).architecture.file_number
        self.paths: dict[int, str] = {}
        for index, site in enumerate(sites):
            attentions = attentions_of(site, file_number(index))
            self.paths |= attentions
            for number, context in zip(attentions, (site.width, site.context_width), strict=True):
                widths = {"q": site.width, "k": context, "v": context, "out": site.width}
                layers = {
                    f"to_{name}_lora": LoraLayer(width, site.width, config.rank, generator)
                    for name, width in widths.items()
                }
                self[str(number)] = nn.ModuleDict(layers)

    def attach(self, unet: nn.Module) -> list[Any]:
        """Add it to the layers of a UNet by hooks, in gradient checkpointing too. Returns the hooks' handles."""
        return [
            unet.get_submodule(f"{path}.{module}").register_forward_hook(_adding(self._layer(number, name)))
            for number, path in self.paths.items()
            for name, module in MODULES.items()
        ]

    def as_file(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """Its tensors as they are distributed beside an adapter. names: of the attentions in diffusers, by path."""
        tensors: dict[str, Tensor] = {}
        for key, tensor in self.state_dict().items():
            number, rest = key.split(".", 1)
            tensors[f"unet.{names[self.paths[int(number)]]}.processor.{rest}"] = tensor
        return tensors

    def _layer(self, number: int, name: str) -> nn.Module:
        return self.get_submodule(f"{number}.to_{name}_lora")


def _adding(layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + layer(inputs[0])

    return add
