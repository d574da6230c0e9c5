"""What the attachments of transformers share: image prompts around a block and inside its attention.

Around each block stands an entry of the kind that the host keeps for other packs ("dit" of patches_replace). It hands on
to what stood there before, and puts the prompts into the block itself, which that one may run, run twice or leave out: a
block that does not run adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from torch import Tensor

from ...ipadapter_core.attention import Own, Size
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.families.family import patch_grid
from .base import Options, Patches, Residual, add_residuals, call_of
from .compiled import add_in_graph, compiling, register_patch

OVERRIDE = "optimized_attention_override"  # key of the host's options
Args = Mapping[str, Any]  # of a block: img, txt where it is apart, transformer_options and more
Block = Callable[[Args], dict[str, Any]]
Replacement = Callable[[Args, dict[str, Any]], dict[str, Any]]
Place = tuple[str, int]  # of a block, as the host names it
_OWN_WAY = (
    "another node runs the blocks of the model in a way of its own and hands on no options to their attention, so that the "
    "image prompt cannot enter there (samplers of ComfyUI-NAG and TeaCache do so on Flux). Take that node out: ComfyUI's "
    "NAG and EasyCache go together with image prompts."
)


class BlockAttachment:
    """As base.Attachment, but for `patches`."""

    def require_hooks(self, wrappers: bool) -> None:
        if not (wrappers and hasattr(host_attention, "wrap_attn")):
            raise MismatchError(
                "this ComfyUI is too old for image prompts on Flux and other transformers: it lacks the hooks "
                "that they enter the model through. Update ComfyUI to 0.3.64 or newer."
            )

    def standing(self, options: Options) -> Patches:
        return options.get("patches_replace", {}).get("dit", {})

    def put(self, options: dict[str, Any], patches: Patches) -> None:
        options["patches_replace"] = {**options.get("patches_replace", {}), "dit": patches}


def options_of(args: Args) -> Options:
    """Of the call that a block is run in. Raises MismatchError where they were not handed on."""
    options: Options | None = args.get("transformer_options")
    if options is None:
        raise MismatchError(_OWN_WAY)
    return options


class BlockPatch:
    """One block with its image prompts. base: another pack's patch of the block."""

    def __init__(self, base: Replacement | None, heads: int, residuals: Sequence[Residual]):
        self.base, self.heads, self.residuals = base, heads, residuals

    def __call__(self, args: Args, extra: dict[str, Any]) -> dict[str, Any]:
        original: Block = extra["original_block"]
        options = options_of(args)

        def block(args: Args) -> dict[str, Any]:
            return self._with_prompts(original, {"transformer_options": options, **args})

        return block(args) if self.base is None else self.base(args, {**extra, "original_block": block})

    def _with_prompts(self, original: Block, args: Args) -> dict[str, Any]:
        call = call_of(args["transformer_options"])
        if not (compiling() or any(call.factor(residual.timing) for residual in self.residuals)):
            return original(args)
        return self.run(original, args)

    def run(self, original: Block, args: Args) -> dict[str, Any]:
        """The block, in a call in which one of the prompts acts."""
        raise NotImplementedError


class Tap:
    """An override of the attention of one run of a block: adds prompts to what it gives.

    Whatever else stands in its place goes first, as does the user's choice of attention.
    """

    def __init__(self, heads: int, args: Args):
        self.heads = heads
        self.given: Options = args["transformer_options"]
        self.inner = self.given.get(OVERRIDE)
        self.text = args["txt"].shape[1] if "txt" in args else 0  # rows in front that prompts leave alone
        self.rows = self.text + args["img"].shape[1]
        self.asked = False

    def run(self, original: Block, args: Args) -> dict[str, Any]:
        """The block with this override. Raises MismatchError where its attention was never asked for it."""
        out = original({**args, "transformer_options": {**self.given, OVERRIDE: self}})
        if not self.asked:
            raise MismatchError(_OWN_WAY)
        return out

    def __call__(self, attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self.asked = True
        run = attention if self.inner is None else self.inner
        out: Tensor = run(*args, **kwargs) if self.inner is None else run(attention, *args, **kwargs)
        q, k, v = args[:3] if len(args) > 2 else (kwargs["q"], kwargs["k"], kwargs["v"])
        return self.added(out, q, k, v, own=self.inner is None and not out.requires_grad)

    def added(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, own: bool) -> Tensor:
        """out with the prompts of the block. own: nobody else has it."""
        raise NotImplementedError

    def behind_text(self, out: Tensor, own: bool, add: Callable[[Tensor], Tensor]) -> Tensor:
        """out (rows, text + N, width) with what `add` makes of the part behind the text."""
        if not self.text:
            return add(out)
        added = add(out[:, self.text :])
        return out if own and not compiling() else torch.cat((out[:, : self.text], added), 1)

    def options(self, front: int) -> dict[str, Any]:
        """Of the call, and what the site is: original_shape is the token grid and the number of text tokens in front."""
        latent = call_of(self.given).latent
        grid = (*patch_grid(0, *latent), front) if latent else ()
        return {**self.given, "n_heads": self.heads, "original_shape": grid}


class Prompts:
    """The image prompts that enter at one point of a block."""

    def __init__(self, residuals: Sequence[Residual]):
        self.residuals = residuals
        self.name = register_patch(self)

    def add(self, out: Tensor, q: Tensor, options: Options, own: bool) -> Tensor:
        if compiling():
            return add_in_graph(self.name, out, q, options)
        return self.add_prompts(out, q, options, own)

    def add_prompts(self, out: Tensor, q: Tensor, options: Options, own: bool = False) -> Tensor:
        """out with the prompts whose window is open. own: nobody else has `out`."""
        call, keys = call_of(options), self.own_keys(options)
        return add_residuals(call, self.residuals, out, q, options, lambda _: _grid(options), own, keys)

    def own_keys(self, options: Options) -> Own | None:
        """What prompts need that attend to the picture's own keys too."""
        return None


def merged_heads(q: Tensor) -> Tensor:
    """(rows, heads, N, d) -> (rows, N, heads · d)"""
    return q.transpose(1, 2).flatten(2)


def _grid(options: Options) -> Size:
    grid = tuple(options["original_shape"])
    if len(grid) != 3 or grid[2] < 0:
        raise MismatchError(
            "another node leaves out the first block of the model or changes its picture, and nothing says where the "
            "picture's tokens are, so the mask of the image prompt, or what Image Prompt: Watch sees, cannot be laid on "
            "them. Disconnect it, or take that node out."
        )
    return grid
