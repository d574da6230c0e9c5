"""A copy of the host's model to train through: weights of its own, gradients through every block."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_management as mm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# What a ModelPatcher stores of the weights that it changed; clones share it, a separate model must not.
_OF_LOADING = {"backup": dict, "backup_buffers": dict, "object_patches_backup": dict, "pinned": set}


def frozen_copy(model: Any) -> Any:
    """The model with weights of its own, none of them inference tensors, which autograd refuses."""
    # unpatched weights: the copy is patched again
    mm.free_memory(1e30, model.load_device)
    known = inspect.signature(model.clone).parameters
    if "force_deepcopy" in known and getattr(model, "cached_patcher_init", None) is not None:
        return model.clone(force_deepcopy=True)
    copied = model.clone()
    # its config cannot be copied deep
    copied.model = copy.copy(model.model)
    copied.model.__dict__["_modules"] = dict(model.model._modules)
    copied.model.diffusion_model = copy.deepcopy(model.model.diffusion_model)
    for name, empty in _OF_LOADING.items():
        if hasattr(copied, name):
            setattr(copied, name, empty())
    return copied


def computes_in(base: Any) -> torch.dtype:
    """What the host's UNet computes in: the dtype of its weights, unless the host casts them at run time."""
    casts = getattr(base, "manual_cast_dtype", None)
    return casts or next(p.dtype for p in base.diffusion_model.parameters() if p.is_floating_point())


def cast_unet(model: Any, dtype: torch.dtype) -> None:
    """Make a copy compute in this dtype. Where the host casts weights at run time, they stay as they are."""
    base = model.model
    if getattr(base, "manual_cast_dtype", None) is not None:
        base.manual_cast_dtype = dtype
        return
    # the host reads the UNet's own dtype
    base.diffusion_model.to(dtype).dtype = dtype
    # cached for the weights before the cast
    model.size = 0


def keep_sums_in_fp32(unet: nn.Module) -> None:
    """For autocast to bf16: sums between blocks and their norms stay in fp32; only products are rounded.

    Without it gradients agree with those of fp32 to 0.998, with it to 0.999. For a frozen copy only.
    """
    for name, module in unet.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.float()
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and name.rpartition(".")[2] not in _WITHIN_BLOCKS:
            module.register_forward_hook(lambda _, inputs, output: output.float())


# layers whose output is not added to the block's input
_WITHIN_BLOCKS = {"to_q", "to_k", "to_v", "proj"}


def keep_inputs_of_norms(unet: nn.Module) -> None:
    """Older hosts add to a block's input in place, which its norms need in the backward pass. For a frozen copy only."""
    for block in unet.modules():
        if isinstance(block, host_attention.BasicTransformerBlock):
            for norm in (block.norm1, block.norm2, block.norm3):
                norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))


def enable_gradient_checkpointing(unet: nn.Module) -> None:
    """Compute the activations inside blocks twice instead of keeping them. For a frozen copy only."""
    for module in unet.modules():
        if isinstance(module, host_attention.SpatialTransformer):
            module.forward = _checkpointed_transformer(module.forward)
        elif type(module).__name__ == "ResBlock":
            module.forward = _checkpointed(module.forward)


def _checkpointed(forward: Any) -> Any:
    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)


def _checkpointed_transformer(forward: Any) -> Any:
    """The host counts blocks in the options as it runs: the second pass needs the counts of the first."""

    def run(
        x: Tensor, context: Tensor | None = None, transformer_options: dict[str, Any] | None = None
    ) -> Tensor:
        options = transformer_options or {}
        first = dict(options)
        out = checkpoint(lambda x, context: forward(x, context, dict(first)), x, context, use_reentrant=False)
        options["transformer_index"] = first.get("transformer_index", 0) + 1
        return out

    return run


def clone_inputs_of_norms(blocks: Sequence[nn.Module]) -> None:
    """Hosts add to a stream of Flux in place behind norms, which need it as it was in the backward pass. For a frozen copy
    only."""
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))


def checkpoint_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compute the activations inside a transformer's blocks twice instead of keeping them. For a frozen copy only.

    Not around the host's `original_block`, which calls whatever block its loop is at.
    """
    for block in blocks:
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Any) -> Any:
    def differentiably(*inputs: Any, **named: Any) -> Any:
        # the second pass runs behind the model's call, and needs streams as they were, to which blocks add in place
        given = [_cloned(value) for value in inputs]
        with in_training():
            return forward(
                *given, **{name: _cloned(t) if name in _STREAMS else t for name, t in named.items()}
            )

    def run(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        # hosts write into the options which block runs, for all blocks into the same
        given = [_own(value) for value in inputs]
        more = {name: _own(value) for name, value in named.items()}
        return checkpoint(differentiably, *given, use_reentrant=False, **more)

    return run


_STREAMS = ("img", "txt", "x", "context", "hidden_states", "encoder_hidden_states")


def _own(value: Any) -> Any:
    return {**value} if isinstance(value, dict) else value


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def in_training() -> Iterator[None]:
    """Newer hosts compute differentiably while their flag is set; on those before it the rotary embedding, which may be a
    kernel without a backward pass, is exchanged."""
    management: Any = mm
    exchanged: list[tuple[Any, str, Any]] = [(management, "in_training", True)]
    if not hasattr(management, "in_training"):
        holders = [sys.modules[name] for name in _ROTATING if name in sys.modules]
        exchanged = [(h, name, made) for h in holders for name, made in _PLAIN.items() if hasattr(h, name)]
    before = [getattr(holder, name) for holder, name, _ in exchanged]
    for holder, name, value in exchanged:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for (holder, name, _), value in zip(exchanged, before, strict=True):
            setattr(holder, name, value)


def _rotated(x: Tensor, rotations: Tensor) -> Tensor:
    """x (n, heads, N, d) under rotations (1 or n, 1, N, d/2, 2, 2)."""
    return (rotations @ x.to(rotations.dtype).unflatten(-1, (-1, 2))[..., None]).flatten(-3).to(x)


def _both_rotated(q: Tensor, k: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    return _rotated(q, rotations), _rotated(k, rotations)


# the host's modules that rotate, and its functions
_ROTATING = ("comfy.ldm.flux.math", "comfy.ldm.lumina.model", "comfy.ldm.qwen_image.model")
_PLAIN = {"apply_rope": _both_rotated, "apply_rope1": _rotated}
