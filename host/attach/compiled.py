"""Image prompts inside torch.compile: at each site one operator that the compiler does not look into.

A compiled model keeps what Python said while it was traced, and the host's TorchCompileModel drops all guards on
transformer_options. So nothing of a step or a prompt may be traced: a patch is named by a tensor, which the compiled
model reads anew, and sigma and conditionings are those of the call that the operator runs in. And graphs that were
traced without patches, or with patches in other places, must not serve: see `compiled_for`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from .calls import CALL, LISTS, animation_frames

PARTS = "image_prompt_parts"  # key of a site's options: what a patch reads of it beside q
COMPILED = "torch.compile"  # key of the host's wrapper that puts the compiled UNet in place
_HAS_OPERATORS = hasattr(torch.library, "custom_op")  # torch 2.4


class PromptPatch(Protocol):
    """A patch: adds its image prompts to what the attention before it gave."""

    def add_prompts(self, out: Tensor, q: Tensor, options: Mapping[str, Any]) -> Tensor: ...


_patches: WeakValueDictionary[int, PromptPatch] = WeakValueDictionary()
_numbers = itertools.count()
_call: ContextVar[Mapping[str, Any] | None] = ContextVar("image_prompt_call", default=None)


def register_patch(patch: PromptPatch) -> Tensor:
    """The name of a patch as a tensor on the CPU, which a graph takes as its input."""
    number = next(_numbers)
    _patches[number] = patch
    with torch.inference_mode(
        False
    ):  # one kind of tensor wherever a model is cloned: the other kind recompiles
        return torch.tensor(number, device="cpu")


@contextmanager
def running_call(options: Mapping[str, Any]) -> Iterator[None]:
    """Operators in this call see the transformer_options that it came with."""
    token = _call.set(options)
    try:
        yield
    finally:
        _call.reset(token)


# --- graphs that serve only calls with patches in the same places --------------------------------------------------


def uncompiled(unet: nn.Module) -> nn.Module:
    return getattr(unet, "_orig_mod", unet)


def is_compiled(unet: nn.Module, options: Mapping[str, Any]) -> bool:
    in_place = getattr(unet, "_compiled_call_impl", None) is not None
    return (
        in_place
        or hasattr(unet, "_orig_mod")
        or COMPILED in options.get("wrappers", {}).get("apply_model", {})
    )


@contextmanager
def compiled_for(
    base: Any, patches: Mapping[Any, Any], options: Mapping[str, Any], run: Any
) -> Iterator[dict[str, Any]]:
    """The host's compiled UNet replaced by one of its own for these patches, while the call runs.

    Gives keywords for the call. Where a graph breaks, its inner frames are compiled apart, and compilers keep their
    graphs by code and backend: a backend of another identity has graphs of its own. How the host compiles is known from
    its model options; of a UNet that somebody compiled otherwise the guards are whole, but for slots that are empty: it
    gets one keyword more, which it ignores, named after the places of the patches.
    """
    if not is_compiled(base.diffusion_model, options):
        yield {}
    elif run.compile_options is None:
        yield {_places(patches): True}
    else:
        with _exchanged(base, _places(patches), run):
            yield {}


@contextmanager
def _exchanged(base: Any, places: str, run: Any) -> Iterator[None]:
    """Every compiled part of the model, whole or block by block, replaced by one of these places' own."""
    key = (id(base.diffusion_model), places)
    if key not in run.built:
        found = [(base, "diffusion_model"), *_parts(base.diffusion_model)]
        run.built[key] = [
            (owner, name, part, _compiled_apart(part._orig_mod, run.compile_options, places))
            for owner, name in found
            if hasattr(part := getattr(owner, name), "_orig_mod")
        ]
    for owner, name, _, own in run.built[key]:
        setattr(owner, name, own)
    try:
        yield
    finally:
        for owner, name, part, _ in run.built[key]:
            setattr(owner, name, part)


def _parts(unet: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    if not hasattr(unet, "_orig_mod"):
        for owner in unet.modules():
            yield from ((owner, name) for name, _ in owner.named_children())


def _compiled_apart(unet: nn.Module, options: Mapping[str, Any], places: str) -> nn.Module:
    """As the host compiled it, by a backend of its own for these places, and with all guards."""
    backend, mode = options.get("backend") or "inductor", options.get("mode")
    settings = {k: v for k, v in (options.get("options") or {}).items() if k != "guard_filter_fn"}
    own = _own_backend(backend, mode, tuple(sorted(settings.items())), places)
    compiled: Any = torch.compile(
        unet, backend=own, fullgraph=bool(options.get("fullgraph")), dynamic=options.get("dynamic")
    )
    return compiled


@lru_cache(maxsize=64)
def _own_backend(
    backend: Any, mode: str | None, settings: tuple[Any, ...], places: str
) -> Callable[..., Any]:
    """The same for the same places, so that a change of a weight compiles nothing again."""
    if backend == "inductor":
        from torch._inductor import list_mode_options
        from torch._inductor.compile_fx import compile_fx

        patches = {**(list_mode_options(mode) if mode else {}), **dict(settings)}
        return partial(compile_fx, config_patches=patches)
    compiler = torch._dynamo.lookup_backend(backend) if isinstance(backend, str) else backend
    return partial(compiler, options=dict(settings)) if settings else partial(compiler)


def _places(patches: Mapping[Any, Any]) -> str:
    """Different for calls whose patches stand in other places, or on other patches."""
    places = ((key, id(getattr(patch, "base", patch))) for key, patch in patches.items())
    return f"image_prompt_{hash(tuple(places)):x}"


# --- the operator ----------------------------------------------------------------------------------------------------


def compiling() -> bool:
    return _HAS_OPERATORS and torch.compiler.is_compiling()


def add_in_graph(name: Tensor, out: Tensor, q: Tensor, options: Mapping[str, Any]) -> Tensor:
    """What the patch of this name adds, as one operator. On hosts with wrappers `options` give sizes, lists, parts only."""
    latent = list(options.get("original_shape", ()))
    shape = list(options.get("activations_shape", ()))
    lists = [list(options.get(key) or ()) for key in LISTS]
    frames = None if CALL in options else animation_frames(options)
    return torch.ops.image_prompt.add(
        name,
        out,
        q,
        options.get("sigmas"),
        options["n_heads"],
        latent,
        shape,
        *lists,
        frames,
        [*options.get(PARTS, ())],
    )


def _add(name: Tensor, out: Tensor, q: Tensor, sigmas: Tensor | None, heads: int, *known: Any) -> Tensor:
    """known: as in _SCHEMA: sizes of latent and activations, the lists of LISTS, numbers of pictures, PARTS."""
    latent, shape, *lists, frames, parts = known
    options: dict[str, Any] = {"sigmas": sigmas, "ad_params": {"sub_idxs": frames}}
    options = {**(_call.get() or options), **dict(zip(LISTS, lists, strict=True))}
    options |= {"n_heads": heads, "original_shape": latent, "activations_shape": shape or None, PARTS: parts}
    added = _patches[int(name)].add_prompts(out, q, options)
    return added.clone() if added is out else added  # an operator may not give back what came


if _HAS_OPERATORS:
    _SCHEMA = (
        "(Tensor name, Tensor out, Tensor q, Tensor? sigmas, SymInt heads, SymInt[] latent, SymInt[] shape, "
        "SymInt[] couple, SymInt[] hook_couple, SymInt[] chunks, SymInt[]? frames, Tensor[] parts) -> Tensor"
    )
    _operator = torch.library.custom_op("image_prompt::add", _add, mutates_args=(), schema=_SCHEMA)
    _operator.register_fake(lambda name, out, *_: torch.empty_like(out))
