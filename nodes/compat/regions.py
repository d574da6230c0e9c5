"""Regions: a picture, its mask and its text for one place, collected for IPAdapter From Params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...ipadapter_core.errors import MismatchError
from .inputs import Compatible

Conditioning = list[list[Any]]
Params = dict[str, list[Any]]
KEYS = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")


class RegionalConditioningNode(Compatible):
    TITLE = "IPAdapter Regional Conditioning"
    DESCRIPTION = "What a picture and a text say about one place: the picture goes to From Params, the texts get the mask."
    SEARCH_ALIASES = ["regional prompt", "attention mask"]
    RETURN_TYPES = ("IPADAPTER_PARAMS", "CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("IPADAPTER_PARAMS", "POSITIVE", "NEGATIVE")
    FUNCTION = "conditioning"
    REQUIRED = "image image_weight prompt_weight weight_type start_at end_at"
    OPTIONAL = "mask positive negative"
    OWN = {
        "image_weight": ("FLOAT", {"default": 1.0, "min": -1.0, "max": 3.0, "step": 0.05}),
        "prompt_weight": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05}),
        "mask": ("MASK",),
        "positive": ("CONDITIONING",),
        "negative": ("CONDITIONING",),
    }

    def conditioning(
        self,
        image: Tensor,
        image_weight: float,
        prompt_weight: float,
        weight_type: str,
        start_at: float,
        end_at: float,
        mask: Tensor | None = None,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
    ) -> tuple[Params, Conditioning | None, Conditioning | None]:
        values = (image, mask, image_weight, weight_type, start_at, end_at)
        params = {key: [value] for key, value in zip(KEYS, values, strict=True)}
        return params, _in_place(positive, mask, prompt_weight), _in_place(negative, mask, prompt_weight)


def _in_place(texts: Conditioning | None, mask: Tensor | None, strength: float) -> Conditioning | None:
    """Texts that act where the mask is white; as they came if there is no mask."""
    if texts is None or mask is None:
        return texts
    where = {
        "mask": mask[None] if mask.ndim == 2 else mask,
        "set_area_to_bounds": False,
        "mask_strength": strength,
    }
    return [[text, {**options, **where}] for text, options in texts]


class CombineParamsNode(Compatible):
    TITLE = "IPAdapter Combine Params"
    DESCRIPTION = "Regions one after the other, for From Params."
    SEARCH_ALIASES = ["combine regions"]
    RETURN_TYPES = ("IPADAPTER_PARAMS",)
    RETURN_NAMES = ("IPADAPTER_PARAMS",)
    FUNCTION = "combine"
    REQUIRED, OPTIONAL = "params_1 params_2", "params_3 params_4 params_5"
    OWN = dict.fromkeys(f"{REQUIRED} {OPTIONAL}".split(), ("IPADAPTER_PARAMS",))

    def combine(
        self,
        params_1: Params,
        params_2: Params,
        params_3: Params | None = None,
        params_4: Params | None = None,
        params_5: Params | None = None,
    ) -> tuple[Params]:
        given = [
            params for params in (params_1, params_2, params_3, params_4, params_5) if params is not None
        ]
        for number, params in enumerate(given, 1):
            _check(params, number)
        return ({key: [value for params in given for value in params[key]] for key in KEYS},)


def _check(params: Any, number: int) -> None:
    missing = [key for key in KEYS if key not in params] if isinstance(params, Mapping) else list(KEYS)
    if missing:
        raise MismatchError(
            f"region {number} lacks {', '.join(missing)}; connect the IPADAPTER_PARAMS of IPAdapter Regional Conditioning."
        )


CLASSES = {
    "IPAdapterRegionalConditioning": RegionalConditioningNode,
    "IPAdapterCombineParams": CombineParamsNode,
}
