"""Flux and Chroma: image prompts beside the attention of a block, or on the image stream behind it.

Around each block stands an entry of the kind that the host keeps for other packs ("dit" of patches_replace). It hands on
to what stood there before, and puts the prompts into the block itself, which that one may run, run twice or leave out: a
block that does not run adds nothing. Adapters read q after its norm and before rotary embedding, while an override of the
attention sees it rotated: the transposed rotation, which the block is given, takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from torch import Tensor, nn

from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.families.flux import DOUBLE, SINGLE, token_grid
from ...ipadapter_core.families.site import Site
from .base import Options, Patches, Residual, Residuals, add_residuals, call_of
from .compiled import add_in_graph, compiling, register_patch

OVERRIDE = "optimized_attention_override"  # key of the host's options
Args = Mapping[str, Any]  # of a block: img, txt (double blocks only), pe, transformer_options and more
Block = Callable[[Args], dict[str, Any]]
Replacement = Callable[[Args, dict[str, Any]], dict[str, Any]]
_TEXT = "text tokens"  # key of a call's notes
_FIRST = (f"{DOUBLE}_block", 0)


class FluxAttachment:
    """As base.Attachment."""

    def require_hooks(self, wrappers: bool) -> None:
        if not (wrappers and hasattr(host_attention, "wrap_attn")):
            raise MismatchError(
                "this ComfyUI is too old for image prompts on Flux and Chroma: it lacks the hooks that they enter the model "
                "through. Update ComfyUI to 0.3.64 or newer."
            )

    def standing(self, options: Options) -> Patches:
        return options.get("patches_replace", {}).get("dit", {})

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        made = dict(standing)
        for site, at_site in residuals.items():
            place = f"{site.stage}_block", int(site.path.rsplit(".", 1)[1])
            made[place] = BlockPatch(standing.get(place), site.heads, at_site)
        if any(site.stage == SINGLE for site in residuals) and not isinstance(made.get(_FIRST), BlockPatch):
            made[_FIRST] = BlockPatch(standing.get(_FIRST), 0, ())  # which notes how much text there is
        return made

    def put(self, options: dict[str, Any], patches: Patches) -> None:
        options["patches_replace"] = {**options.get("patches_replace", {}), "dit": patches}


class BlockPatch:
    """One block with its image prompts. base: another pack's patch of the block."""

    def __init__(self, base: Replacement | None, heads: int, residuals: Sequence[Residual]):
        self.base, self.heads, self.residuals = base, heads, residuals
        self.attention = Prompts([each for each in residuals if not each.behind])
        self.behind = Prompts([each for each in residuals if each.behind])

    def __call__(self, args: Args, extra: dict[str, Any]) -> dict[str, Any]:
        original: Block = extra["original_block"]
        options: Options = args["transformer_options"]
        if "txt" in args:
            call_of(options).notes[_TEXT] = args["txt"].shape[1]

        def block(args: Args) -> dict[str, Any]:
            return self._with_prompts(original, {"transformer_options": options, **args})

        return block(args) if self.base is None else self.base(args, {**extra, "original_block": block})

    def _with_prompts(self, original: Block, args: Args) -> dict[str, Any]:
        options: Options = args["transformer_options"]
        call = call_of(options)
        if not (compiling() or any(call.factor(residual.timing) for residual in self.residuals)):
            return original(args)
        tap = _Tap(self, args)
        out = original({**args, "transformer_options": {**options, OVERRIDE: tap}})
        if tap.q is not None:
            own = not out["img"].requires_grad
            out["img"] = self.behind.add(out["img"], tap.q, tap.options(0), own)
        return out


class _Tap:
    """An override of the attention of one run of a block: adds prompts to what it gives, and keeps q for those behind.

    Whatever else stands in its place goes first, as does the user's choice of attention.
    """

    def __init__(self, patch: BlockPatch, args: Args):
        self.patch, self.pe = patch, args["pe"]
        self.given: Options = args["transformer_options"]
        self.inner = self.given.get(OVERRIDE)
        self.text = args["txt"].shape[1] if "txt" in args else 0  # rows in front that prompts leave alone
        self.rows = self.text + args["img"].shape[1]
        self.q: Tensor | None = None  # before rotation, of the image stream (rows, N, width)

    def __call__(self, attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        run = attention if self.inner is None else self.inner
        out: Tensor = run(*args, **kwargs) if self.inner is None else run(attention, *args, **kwargs)
        q: Tensor = args[0] if args else kwargs["q"]
        if q.ndim != 4 or q.shape[2] != self.rows:  # an attention of another pack, inside the block
            return out
        q = merged_heads(unrotated(q[:, :, self.text :], self.pe, self.text))
        if self.patch.behind.residuals and self.q is None:
            self.q = q
        if not self.patch.attention.residuals:
            return out
        front = 0 if self.text else self._text_in_front()
        own = self.inner is None and not out.requires_grad
        if not self.text:
            return self.patch.attention.add(out, q, self.options(front), own)
        added = self.patch.attention.add(out[:, self.text :], q, self.options(front), own)
        return out if own and not compiling() else torch.cat((out[:, : self.text], added), 1)

    def _text_in_front(self) -> int:
        """Tokens of text among the rows of a block of one stream."""
        return call_of(self.given).notes.get(_TEXT, -1)

    def options(self, front: int) -> dict[str, Any]:
        """Of the call, and what the site is: original_shape is the token grid and the number of text tokens in front."""
        latent = call_of(self.given).latent
        grid = (*token_grid(0, *latent), front) if latent else ()
        return {**self.given, "n_heads": self.patch.heads, "original_shape": grid}


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
        call = call_of(options)
        return add_residuals(call, self.residuals, out, q, options, lambda _: _grid(options), own)


def _grid(options: Options) -> tuple[int, int, int]:
    grid = tuple(options["original_shape"])
    if len(grid) != 3 or grid[2] < 0:
        raise MismatchError(
            "another node leaves out the first block of the model or changes its picture, and nothing says where the "
            "picture's tokens are, so the mask of the image prompt cannot be laid on them. Disconnect the mask, or take "
            "that node out."
        )
    return grid


def unrotated(q: Tensor, pe: Tensor | None, start: int = 0) -> Tensor:
    """q (rows, heads, N, d) as it was before rotary embedding. pe (1 or rows, 1, ≥ start + N, d/2, 2, 2): the rotations.

    They are orthogonal: the transposed one takes each back.
    """
    if pe is None:
        return q
    pairs = q.to(pe.dtype).unflatten(-1, (-1, 2))
    pe = pe[:, :, start : start + q.shape[2]]
    turned = torch.addcmul(pe[..., 0, :] * pairs[..., :1], pe[..., 1, :], pairs[..., 1:])
    return turned.flatten(-2).to(q.dtype)


def merged_heads(q: Tensor) -> Tensor:
    """(rows, heads, N, d) -> (rows, N, heads · d)"""
    return q.transpose(1, 2).flatten(2)
