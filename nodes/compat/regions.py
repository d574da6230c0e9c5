"""Regions: the picture, mask and text of one region, collected for IPAdapter From Params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...ipadapter_core import values
from ...ipadapter_core.errors import MismatchError
from ..entry import Check
from .inputs import ANY_FRACTION, Compatible

Conditioning = list[list[Any]]
Params = dict[str, list[Any]]
KEYS = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")


def _conditioning(value: Any, name: str) -> Conditioning:
    """CONDITIONING as the host gives it: a list of [tensor, options]."""
    fits = isinstance(value, list) and all(
        isinstance(each, list | tuple) and len(each) == 2 and isinstance(each[1], Mapping) for each in value
    )
    if not fits:
        raise MismatchError(f"{name} is {values.described(value)}; connect a text encoder's CONDITIONING.")
    return value


class RegionalConditioningNode(Compatible):
    TITLE = "IPAdapter Regional Conditioning"
    DESCRIPTION = "What a picture and a text say about one place: the picture goes to From Params, the texts get the mask."
    SEARCH_ALIASES = ["regional prompt", "attention mask"]
    RETURN_TYPES = ("IPADAPTER_PARAMS", "CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("IPADAPTER_PARAMS", "POSITIVE", "NEGATIVE")
    FUNCTION = "conditioning"
    REQUIRED = "image image_weight prompt_weight weight_type start_at end_at"
    OPTIONAL = "mask positive negative"
    LISTS = "image_weight"
    OWN = {
        "image_weight": ("FLOAT", {"default": 1.0, "min": -1.0, "max": 3.0, "step": 0.05}),
        "prompt_weight": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05}),
        "mask": ("MASK",),
        "positive": ("CONDITIONING",),
        "negative": ("CONDITIONING",),
    }
    KINDS = ANY_FRACTION | {"CONDITIONING": _conditioning}

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
        given = (image, mask, image_weight, weight_type, start_at, end_at)
        params = {key: [value] for key, value in zip(KEYS, given, strict=True)}
        return params, _masked(positive, mask, prompt_weight), _masked(negative, mask, prompt_weight)


def _masked(texts: Conditioning | None, mask: Tensor | None, strength: float) -> Conditioning | None:
    """The texts limited to the mask; unchanged without a mask."""
    if texts is None or mask is None:
        return texts
    area = {"mask": mask, "set_area_to_bounds": False, "mask_strength": strength}
    return [[text, {**options, **area}] for text, options in texts]


_CHECKS: dict[str, Check] = {
    "image": values.pictures,
    "attn_mask": values.masks,
    "weight": values.weights,
    "weight_type": values.text,
    "start_at": values.number,
    "end_at": values.number,
}
_MAY_BE_NONE = ("image", "attn_mask")


def checked_params(params: Any, name: str) -> Params:
    """Regions: for each key of KEYS a list of values, as many as there are regions. Raises MismatchError."""
    missing = [key for key in KEYS if key not in params] if isinstance(params, Mapping) else list(KEYS)
    if missing:
        raise MismatchError(
            f"{name} lacks {', '.join(missing)}; connect the IPADAPTER_PARAMS of IPAdapter Regional Conditioning."
        )
    lists = {key: params[key] for key in KEYS}
    if len({len(each) if isinstance(each, list | tuple) else -1 for each in lists.values()} | {0}) != 2:
        raise MismatchError(
            f"{name} must hold lists of one length for {', '.join(KEYS)}; connect the IPADAPTER_PARAMS of IPAdapter "
            "Regional Conditioning."
        )
    return {key: [_value(key, value, f"{name}: {key}") for value in given] for key, given in lists.items()}


def _value(key: str, value: Any, name: str) -> Any:
    return None if value is None and key in _MAY_BE_NONE else _CHECKS[key](value, name)


class CombineParamsNode(Compatible):
    TITLE = "IPAdapter Combine Params"
    DESCRIPTION = "Regions one after the other, for From Params."
    SEARCH_ALIASES = ["combine regions"]
    RETURN_TYPES = ("IPADAPTER_PARAMS",)
    RETURN_NAMES = ("IPADAPTER_PARAMS",)
    FUNCTION = "combine"
    REQUIRED, OPTIONAL = "params_1 params_2", "params_3 params_4 params_5"
    OWN = dict.fromkeys(f"{REQUIRED} {OPTIONAL}".split(), ("IPADAPTER_PARAMS",))
    KINDS = {"IPADAPTER_PARAMS": checked_params}

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
        return ({key: [value for params in given for value in params[key]] for key in KEYS},)


CLASSES = {
    "IPAdapterRegionalConditioning": RegionalConditioningNode,
    "IPAdapterCombineParams": CombineParamsNode,
}
