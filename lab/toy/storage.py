"""The toy world's weight files: safetensors in half precision, or in 8 bits where that is enough."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]
SCALE = ".scale"


def save(weights: Weights, path: Path, eight_bits: bool = False) -> None:
    """fp16; single numbers stay fp32. eight_bits: matrices and kernels as int8, with a scale for each output."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored: Weights = {}
    for key, value in weights.items():
        value = value.detach()
        if eight_bits and value.ndim > 1:
            scale = (value.flatten(1).abs().amax(1) / 127).clamp(min=1e-8)
            stored[key] = (value / _over_rows(scale, value)).round().to(torch.int8).contiguous()
            stored[key + SCALE] = scale.float()
        else:
            stored[key] = (value.half() if value.ndim else value).contiguous()
    save_file(stored, path)


def load(path: Path) -> Weights:
    """As fp32."""
    stored = load_file(path)
    scales = {key + SCALE for key in stored}
    values = {key: value.float() for key, value in stored.items() if key not in scales}
    return {
        key: value * _over_rows(stored[key + SCALE], value) if key + SCALE in stored else value
        for key, value in values.items()
    }


def _over_rows(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *(1,) * (value.ndim - 1))
