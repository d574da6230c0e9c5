"""EMBEDS of the de-facto pack, both generations: combining them, and files of them."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ...host import saved
from .. import names
from .arithmetic.combine_features import MODES
from .arithmetic.embeds import batch_embeds, combine_embeds, load_embeds, save_embeds
from .inputs import Compatible, inputs
from .settings import exact_legacy

log = logging.getLogger(__name__)
_EMBEDS = ("EMBEDS",)
_MORE = " ".join(f"embed{n}" for n in range(2, 6))


class CombineEmbedsNode(Compatible):
    TITLE = "IPAdapter Combine Embeds"
    DESCRIPTION = "Makes one of up to five embeds of the same encoder. New graphs: Image Prompt: Combine."
    SEARCH_ALIASES = ["combine embeds"]
    RETURN_TYPES = ("EMBEDS",)
    RETURN_NAMES = ("EMBEDS",)
    FUNCTION = "batch"
    REQUIRED, OPTIONAL = "embed1 method", _MORE
    OWN = {"method": (list(MODES),), **dict.fromkeys(f"embed1 {_MORE}".split(), _EMBEDS)}

    def batch(
        self,
        embed1: Tensor,
        method: str,
        embed2: Tensor | None = None,
        embed3: Tensor | None = None,
        embed4: Tensor | None = None,
        embed5: Tensor | None = None,
    ) -> tuple[Tensor]:
        given = [embed for embed in (embed1, embed2, embed3, embed4, embed5) if embed is not None]
        return (combine_embeds(given, method, exact_legacy()),)


class BatchEmbedsNode(Compatible):
    TITLE = "IPAdapter Batch Embeds"
    DESCRIPTION = "Puts the pictures of two encoders' outputs one after the other."
    SEARCH_ALIASES = ["batch embeds"]
    RETURN_TYPES = ("EMBEDS",)
    RETURN_NAMES = ("EMBEDS",)
    FUNCTION = "batch"
    REQUIRED = "embed1 embed2"
    OWN = {"embed1": _EMBEDS, "embed2": _EMBEDS}

    def batch(self, embed1: Tensor, embed2: Tensor) -> tuple[Tensor]:
        return (batch_embeds(embed1, embed2),)


class SaveEmbedsNode(Compatible):
    TITLE = "IPAdapter Save Embeds"
    DESCRIPTION = (
        "Writes embeds as .ipadpt in the output folder, under the next free number: nothing is overwritten. New graphs: "
        "Image Prompt: Save."
    )
    SEARCH_ALIASES = ["save embeds"]
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "save"
    REQUIRED = "embeds filename_prefix"
    OWN = {"embeds": _EMBEDS, "filename_prefix": ("STRING", {"default": "IP_embeds"})}

    def save(self, embeds: Tensor, filename_prefix: str) -> tuple[None]:
        path = saved.new_embeds_path(filename_prefix)
        save_embeds(embeds, path)
        log.info("Image Prompt: embeds saved as %s", path)
        return (None,)


class LoadEmbedsNode(Compatible):
    TITLE = "IPAdapter Load Embeds"
    DESCRIPTION = "Reads embeds from the input folder, the output folder or models/image_prompts. Nothing in a file is run."
    SEARCH_ALIASES = ["load embeds"]
    RETURN_TYPES = ("EMBEDS",)
    RETURN_NAMES = ("EMBEDS",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs("embeds", "", embeds=(list(saved.embeds_files()),))

    @classmethod
    def VALIDATE_INPUTS(cls, embeds: Any = None) -> bool | str:
        """Paths of other systems are understood ('face\\\\a.ipadpt'); the menu is checked here instead of by the host."""
        return names.problem(lambda name: saved.embeds_path(str(name)), embeds)

    @classmethod
    def IS_CHANGED(cls, embeds: str) -> str:
        return saved.embeds_stamp(embeds)

    def load(self, embeds: str) -> tuple[Tensor]:
        return (load_embeds(saved.embeds_path(embeds)),)


CLASSES = {
    "IPAdapterCombineEmbeds": CombineEmbedsNode,
    "IPAdapterBatchEmbeds": BatchEmbedsNode,
    "IPAdapterSaveEmbeds": SaveEmbedsNode,
    "IPAdapterLoadEmbeds": LoadEmbedsNode,
}
