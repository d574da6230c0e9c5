"""Lumina 2 and Z-Image: image prompts beside the attention of a block of the one stream, on its image rows.

The host keeps no places around these blocks. It says in its options which of them runs, and an override of the attention
stands for all of them. q is what the attention gets: under the model's norm, and rotated. Adapters are trained so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.families.family import patch_grid
from ...ipadapter_core.families.site import Site
from .base import Options, Patches, Residuals, call_of
from .blocks import OVERRIDE, BlockAttachment, Prompts, merged_heads
from .compiled import compiling

KEY = "image_prompt"  # of our wrapper
REFINER = (
    "noise_refiner"  # of the host's patches: behind a block that refines the picture, before the one stream
)
_IMAGE, _ASKED = "image rows", "blocks asked"  # keys of a call's notes
_MOST_PADDING = 256  # rows behind the picture, which Z-Image fills up to a multiple of 32
_TOO_OLD = (
    "this ComfyUI does not say which block of a Lumina 2 or Z-Image runs, so that the image prompt cannot enter there. "
    "Update ComfyUI to 0.8.0 or newer."
)


class LuminaAttachment(BlockAttachment):
    """As base.Attachment. One override of the attention stands for all blocks."""

    def standing(self, options: Options) -> Patches:
        found = options.get(OVERRIDE)
        return {} if found is None else {OVERRIDE: found}

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        prompts = {site.run_index: Prompts(at_site) for site, at_site in residuals.items()}
        return {OVERRIDE: LuminaOverride(standing.get(OVERRIDE), next(iter(residuals)).heads, prompts)}

    def put(self, options: dict[str, Any], patches: Patches) -> None:
        options.update(patches)
        listed = options.get("patches", {})
        options["patches"] = {**listed, REFINER: [*listed.get(REFINER, ()), _note_image_rows]}
        wrappers = options.get("wrappers", {})
        of_network = wrappers.get("diffusion_model", {})
        options["wrappers"] = {**wrappers, "diffusion_model": {**of_network, KEY: [_require_asked]}}


class LuminaOverride:
    """Of every attention of the model. base: another pack's. prompts: by the number of their block."""

    def __init__(self, base: Any, heads: int, prompts: Mapping[int, Prompts]):
        self.base, self.heads, self.prompts = base, heads, prompts

    def __call__(self, attention: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = (
            attention(*args, **kwargs) if self.base is None else self.base(attention, *args, **kwargs)
        )
        options: Options = kwargs.get("transformer_options") or {}
        image = call_of(options).notes.get(_IMAGE, 0)
        prompts = self.prompts.get(_block_of(options))
        q: Tensor = args[0] if args else kwargs["q"]
        if prompts is None or not 0 < image < q.shape[2]:  # of the text alone, or of the picture alone
            return out
        call_of(options).notes[_ASKED] = 1
        return self._added(out, q, image, prompts, options)

    def _added(self, out: Tensor, q: Tensor, image: int, prompts: Prompts, options: Options) -> Tensor:
        own, text = self.base is None and not out.requires_grad, q.shape[2] - image
        site = {**options, "n_heads": self.heads, "original_shape": _shape(options, image, text)}
        added = prompts.add(out[:, text:], merged_heads(q[:, :, text:]), site, own)
        return out if own and not compiling() else torch.cat((out[:, :text], added), 1)


def _block_of(options: Options) -> int:
    """The number of the block of the one stream that runs; -1 where none does, or the host does not say."""
    return options.get("block_index", -1) if options.get("block_type") == "double" else -1


def _shape(options: Options, image: int, text: int) -> Sequence[int]:
    """The token grid and the number of rows in front; () where pictures of others stand among the image's rows."""
    latent = call_of(options).latent
    grid = patch_grid(0, *latent) if latent else (0, 0)
    padding = image - grid[0] * grid[1]
    return (*grid, text) if latent and 0 <= padding < _MOST_PADDING else ()


def _note_image_rows(args: Mapping[str, Any]) -> dict[str, Any]:
    """As a patch of the host: changes nothing."""
    call_of(args["transformer_options"]).notes[_IMAGE] = args["img"].shape[1]
    return {}


def _require_asked(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """DIFFUSION_MODEL wrapper. Raises MismatchError where no block came to the override."""
    out = executor(*args, **kwargs)
    options: Options | None = kwargs.get("transformer_options")
    if options is not None and not compiling() and _ASKED not in call_of(options).notes:
        raise MismatchError(_TOO_OLD)
    return out
