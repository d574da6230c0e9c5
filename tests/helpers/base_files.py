"""Files with the keys of a base model's attentions, as its checkpoint has them, and nothing in them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

Blocks = list[tuple[int, int]]  # number, depth


class Layout(NamedTuple):
    inputs: Blocks
    outputs: Blocks
    middle: int
    context_width: int


SD15 = Layout([(n, 1) for n in (1, 2, 4, 5, 7, 8)], [(n, 1) for n in range(3, 12)], 1, 768)
SDXL = Layout([(4, 2), (5, 2), (7, 10), (8, 10)], [(n, 10 if n < 3 else 2) for n in range(6)], 10, 2048)


def unet_keys(layout: Layout) -> list[str]:
    stages = (("input", layout.inputs), ("output", layout.outputs))
    blocks = [
        (f"{stage}_blocks.{n}.1", d) for stage, all_ in stages for n, depth in all_ for d in range(depth)
    ]
    blocks += [("middle_block.1", depth) for depth in range(layout.middle)]
    return [f"{block}.transformer_blocks.{depth}.attn2.to_k.weight" for block, depth in blocks]


def write_keys(path: Path, keys: list[str], shape: tuple[int, ...]) -> Path:
    save_file({key: torch.zeros(shape, dtype=torch.float8_e4m3fn) for key in keys}, path)
    return path


def write_checkpoint(path: Path, layout: Layout) -> Path:
    keys = [f"model.diffusion_model.{key}" for key in unet_keys(layout)]
    return write_keys(path, keys, (4, layout.context_width))
