"""Small transformers of our own that give patches what ComfyUI's Qwen-Image and Z-Image give them.

Beside `transformer`, which is the same for Flux. Qwen-Image keeps places around its blocks; Z-Image has none, refines the
picture in a block of its own first, and writes into its options which block of the one stream runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .tiny_flux import DIM, HEADS, WIDTH, lively_
from .transformer import DoubleBlock, Executor, Model, Patcher, SingleBlock, Transformer, rotations

BLOCKS = 2


class TextAttention(nn.Module):
    """What the host's block has by this name: K and V of text."""

    inner_dim, heads = WIDTH, HEADS

    def __init__(self, qkv: nn.Linear):
        super().__init__()
        self.of_text = qkv

    @property
    def add_k_proj(self) -> SimpleNamespace:
        return SimpleNamespace(weight=self.of_text.weight[WIDTH : 2 * WIDTH])

    @property
    def add_v_proj(self) -> SimpleNamespace:
        return SimpleNamespace(weight=self.of_text.weight[2 * WIDTH :])


class QwenBlock(DoubleBlock):
    def __init__(self) -> None:
        super().__init__()
        self.attn = TextAttention(self.of_text.qkv)


class Qwen(Transformer):
    def __init__(self) -> None:
        super().__init__(0, 0)
        self.txt_norm = nn.Identity()
        self.transformer_blocks = self.double_blocks = nn.ModuleList(QwenBlock() for _ in range(BLOCKS))


class OwnAttention(nn.Module):
    n_local_heads = n_local_kv_heads = HEADS
    head_dim = DIM

    def __init__(self, qkv: nn.Linear):
        super().__init__()
        self.qkv = qkv


class Layer(SingleBlock):
    def __init__(self) -> None:
        super().__init__()
        self.attention = OwnAttention(self.qkv)


class OneStream(Transformer):
    patch_size = 2

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.noise_refiner = nn.ModuleList([Layer()])
        self.layers = nn.ModuleList(Layer() for _ in range(BLOCKS))

    def forward(self, *args: Any, transformer_options: dict[str, Any], **more: Any) -> Tensor:
        """Within the host's wrappers of networks."""
        of_network = transformer_options.get("wrappers", {}).get("diffusion_model", {})
        around = [wrapper for found in of_network.values() for wrapper in found]
        call = Executor(super().forward, self, around)
        return call(*args, transformer_options=transformer_options, **more)

    def _blocks(self, img: Tensor, txt: Tensor, options: dict[str, Any]) -> Tensor:
        pe, text = rotations(txt.shape[1] + img.shape[1]), txt.shape[1]
        for layer in self.noise_refiner:
            img = layer(img, pe[:, :, text:], options)
            for patch in options.get("patches", {}).get("noise_refiner", ()):
                patch({"img": img, "txt": txt, "transformer_options": options})
        x = torch.cat((txt, img), 1)
        for n, layer in enumerate(self.layers):
            options |= {"block_index": n, "block_type": "double"}
            x = layer(x, pe, options)
        return x


def stand_in(network: Callable[[], nn.Module]) -> Patcher:
    made = network().requires_grad_(False).eval()
    tensors: Mapping[str, Tensor] = made.state_dict()
    lively_(dict(tensors), 5)
    return Patcher(Model(made))
