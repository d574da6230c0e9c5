"""A layer's weight as numbers, where a host keeps it quantised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MismatchError


def weight_of(layer: nn.Module) -> Tensor:
    """A copy (out, in) in fp32 on the CPU, with its scale.

    Of plain weights, of ComfyUI's fp8 weights with a scale beside them (0.3.64) and of its quantised tensors (0.8.0 and
    newer). Raises MismatchError for what is no such matrix, as of GGUF files.
    """
    kept: Any = layer.weight
    # a quantised tensor has a way of its own back to numbers
    if type(kept).dequantize is not Tensor.dequantize:
        kept = kept.dequantize()
    shape = getattr(layer, "out_features", kept.shape[0]), getattr(layer, "in_features", kept.shape[-1])
    if not kept.is_floating_point() or tuple(kept.shape) != shape:
        raise MismatchError(
            f"the model's weights are quantised in a way that is not read here ({kept.dtype}, {tuple(kept.shape)}), so that "
            "no adapter can start from them. Load the model in fp16, bf16 or fp8, or start from an adapter's file."
        )
    weight = kept.detach().to("cpu", torch.float32, copy=True)
    scale = getattr(layer, "scale_weight", None)
    return weight if scale is None else weight * scale.detach().to("cpu", torch.float32)
