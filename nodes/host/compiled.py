"""Image prompts inside torch.compile: at each site one operator that the compiler does not look into.

A compiled model keeps what Python said while it was traced, and the host's TorchCompileModel drops all guards on
transformer_options. So nothing of a step or a prompt may be traced: a patch is named by a tensor, which the compiled
model reads anew, and sigma and conditionings are those of the call that the operator runs in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

COMPILED = "torch.compile"  # key of the host's wrapper that puts the compiled UNet in place
_HAS_OPERATORS = hasattr(torch.library, "custom_op")  # torch 2.4


class Adds(Protocol):
    """A patch: adds its image prompts to what the attention before it gave."""

    def add_prompts(self, out: Tensor, q: Tensor, options: Mapping[str, Any]) -> Tensor: ...


_patches: WeakValueDictionary[int, Adds] = WeakValueDictionary()
_numbers = itertools.count()
_call: ContextVar[Mapping[str, Any] | None] = ContextVar("image_prompt_call", default=None)


def named(patch: Adds) -> Tensor:
    """The name of a patch as a tensor on the CPU, which a graph takes as its input."""
    number = next(_numbers)
    _patches[number] = patch
    with torch.inference_mode(
        False
    ):  # one kind of tensor wherever a model is cloned: the other kind recompiles
        return torch.tensor(number, device="cpu")


def remember_call(executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL wrapper: operators in this call see the transformer_options that it came with.

    A compiled UNet gets one keyword more, which it ignores. Its name tells where patches stand, so a graph serves only
    calls that have their patches in the same places: compilers check names of keywords, but not which slots are empty.
    """
    options = kwargs.get("transformer_options") or next((a for a in args if isinstance(a, dict)), {})
    if _is_compiled(executor, options):
        kwargs[_places(options)] = True
    token = _call.set(options)
    try:
        return executor(*args, **kwargs)
    finally:
        _call.reset(token)


def _is_compiled(executor: Any, options: Mapping[str, Any]) -> bool:
    unet = getattr(getattr(executor, "class_obj", None), "diffusion_model", None)
    in_place = getattr(unet, "_compiled_call_impl", None) is not None
    return (
        in_place
        or hasattr(unet, "_orig_mod")
        or COMPILED in options.get("wrappers", {}).get("apply_model", {})
    )


def _places(options: Mapping[str, Any]) -> str:
    """Different for calls whose attn2 patches stand in other slots, on other patches, or have other guests."""
    slots = options.get("patches_replace", {}).get("attn2", {})
    places = ((key, *map(id, getattr(patch, "joined", (patch,)))) for key, patch in slots.items())
    return f"image_prompt_{hash(tuple(places)):x}"


def compiling() -> bool:
    return _HAS_OPERATORS and torch.compiler.is_compiling()


def add_in_graph(
    name: Tensor, out: Tensor, q: Tensor, options: Mapping[str, Any], frames: Sequence[int] | None
) -> Tensor:
    """What the patch of this name adds, as one operator. On hosts with wrappers `options` give the sizes only."""
    latent = list(options.get("original_shape", ()))
    shape = list(options.get("activations_shape", ()))
    chunks = list(options.get("cond_or_uncond", (0,)))
    return torch.ops.image_prompt.add(
        name, out, q, options.get("sigmas"), options["n_heads"], chunks, latent, shape, frames
    )


def _add(
    name: Tensor,
    out: Tensor,
    q: Tensor,
    sigmas: Tensor | None,
    heads: int,
    chunks: Sequence[int],
    latent: Sequence[int],
    shape: Sequence[int],
    frames: Sequence[int] | None,
) -> Tensor:
    options: dict[str, Any] = {"cond_or_uncond": chunks, "sigmas": sigmas, "ad_params": {"sub_idxs": frames}}
    options = {**(_call.get() or options), "n_heads": heads, "original_shape": latent}
    options["activations_shape"] = shape or None
    added = _patches[int(name)].add_prompts(out, q, options)
    return added.clone() if added is out else added  # an operator may not give back what came


if _HAS_OPERATORS:
    _SCHEMA = (
        "(Tensor name, Tensor out, Tensor q, Tensor? sigmas, SymInt heads, SymInt[] chunks, SymInt[] latent, "
        "SymInt[] shape, SymInt[]? frames) -> Tensor"
    )
    _operator = torch.library.custom_op("image_prompt::add", _add, mutates_args=(), schema=_SCHEMA)
    _operator.register_fake(lambda name, out, *_: torch.empty_like(out))
