"""A copy of the host's model to train through: weights of its own, gradients through every block."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_management as mm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# What a ModelPatcher remembers of the weights it changed; clones share it, a model of its own must not.
_OF_LOADING = {"backup": dict, "backup_buffers": dict, "object_patches_backup": dict, "pinned": set}


def frozen_copy(model: Any) -> Any:
    """The model with weights of its own, which no inference tensors are: autograd takes none."""
    mm.free_memory(1e30, model.load_device)  # weights as they were before patches, which the copy gets again
    known = inspect.signature(model.clone).parameters
    if "force_deepcopy" in known and getattr(model, "cached_patcher_init", None) is not None:
        return model.clone(force_deepcopy=True)
    twin = model.clone()
    twin.model = copy.copy(model.model)  # its config cannot be copied deep
    twin.model.__dict__["_modules"] = dict(model.model._modules)
    twin.model.diffusion_model = copy.deepcopy(model.model.diffusion_model)
    for name, empty in _OF_LOADING.items():
        if hasattr(twin, name):
            setattr(twin, name, empty())
    return twin


def computes_in(base: Any) -> torch.dtype:
    """What the host's UNet computes in: that of its weights, unless the host casts them as it goes."""
    casts = getattr(base, "manual_cast_dtype", None)
    return casts or next(p.dtype for p in base.diffusion_model.parameters() if p.is_floating_point())


def cast_unet(model: Any, dtype: torch.dtype) -> None:
    """Have a copy compute in this dtype. Where the host casts weights as it goes, they stay as they are."""
    base = model.model
    if getattr(base, "manual_cast_dtype", None) is not None:
        base.manual_cast_dtype = dtype
        return
    base.diffusion_model.to(dtype).dtype = dtype  # the host asks the UNet for its dtype
    model.size = 0  # remembered of the weights as they were


def add_up_in_full(unet: nn.Module) -> None:
    """For autocast to bf16: what blocks add up, and their norms, stay in fp32; only products are rounded. Without it
    gradients agree with those of fp32 to 0.998, with it to 0.999. On a copy of our own only."""
    for name, module in unet.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.float()
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and name.rpartition(".")[2] not in _WITHIN_BLOCKS:
            module.register_forward_hook(lambda _, inputs, output: output.float())


_WITHIN_BLOCKS = {"to_q", "to_k", "to_v", "proj"}  # whose output is not added to the block's input


def keep_inputs_of_norms(unet: nn.Module) -> None:
    """Older hosts add to a block's input in place, which its norms need for the backward pass. On a copy of our own only."""
    for block in unet.modules():
        if isinstance(block, host_attention.BasicTransformerBlock):
            for norm in (block.norm1, block.norm2, block.norm3):
                norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))


def recompute_activations(unet: nn.Module) -> None:
    """Keep no activations inside blocks for the backward pass; compute them twice. On a copy of our own only."""
    for module in unet.modules():
        if isinstance(module, host_attention.SpatialTransformer):
            module.forward = _recomputed_transformer(module.forward)
        elif type(module).__name__ == "ResBlock":
            module.forward = _recomputed(module.forward)


def _recomputed(forward: Any) -> Any:
    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)


def _recomputed_transformer(forward: Any) -> Any:
    """The host writes its place in the UNet into the options as it goes: the second time needs those of the first."""

    def run(
        x: Tensor, context: Tensor | None = None, transformer_options: dict[str, Any] | None = None
    ) -> Tensor:
        options = transformer_options or {}
        then = dict(options)
        out = checkpoint(lambda x, context: forward(x, context, dict(then)), x, context, use_reentrant=False)
        options["transformer_index"] = then.get("transformer_index", 0) + 1
        return out

    return run
