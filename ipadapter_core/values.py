"""Values where they enter, from a graph, a text or a file: each kind has one check, which gives the value in its plain
form or raises with one sentence that names the input.

A number, a text or a word of a menu that cannot work is a SettingError; what is of a wrong kind or shape on a link is a
MismatchError. Links bypass the ranges and menus that a host checks in widgets, so that nothing here relies on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .errors import MismatchError, SettingError

LARGEST_WEIGHT = 100.0
# Light may be brighter than 1, but values that no picture has would overflow.
LARGEST_PIXEL = 1e6
LARGEST_MASK = 1e3
LARGEST_FEATURE = 1e6
# Times as long as wide: a crop of a longer picture is a few of its pixels, and costs memory beyond bounds.
LONGEST = 64


# --- numbers and words -------------------------------------------------------------------------------------------


def number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in low..high; of a tensor, an array or a list with one element that one, of a text its number."""
    try:
        made = float(_single(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        made = math.nan
    if not (math.isfinite(made) and low <= made <= high):
        raise SettingError(f"{name} is {described(value)}; it must be {_range(low, high)}.")
    return made


def weight(value: Any, name: str) -> float:
    """A number in -100..100: a weight may leave its widget's range, but not so far that numbers overflow."""
    return number(value, name, -LARGEST_WEIGHT, LARGEST_WEIGHT)


def weights(value: Any, name: str) -> float | list[float]:
    """A weight, or a list of weights, one for each picture; lists may be tuples, arrays and tensors."""
    given = _listed(value)
    if not isinstance(given, list | tuple):
        return weight(value, name)
    if not given:
        raise SettingError(f"{name} is an empty list; give a number, or a list with one for each picture.")
    return [weight(each, f"{name} of picture {n}") for n, each in enumerate(cast("list[Any]", given), 1)]


def whole(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> int:
    """A whole number in low..high, however it is written."""
    made = number(value, name, low, high)
    if made != int(made):
        raise SettingError(f"{name} is {described(value)}; it must be a whole number.")
    return int(made)


def switch(value: Any, name: str) -> bool:
    """True or False, also as 1 and 0."""
    single = _single(value)
    if isinstance(single, bool) or (isinstance(single, int | float) and single in (0, 1)):
        return bool(single)
    raise SettingError(f"{name} is {described(value)}; it must be true or false.")


def text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    raise SettingError(f"{name} is {described(value)}; it must be a text.")


def choice(value: Any, name: str, words: Collection[str]) -> str:
    """One of these words; capitals and blanks around do not matter where only one word can be meant."""
    if isinstance(value, str):
        if value in words:
            return value
        plain = value.strip().casefold()
        alike = [word for word in words if word.casefold() == plain]
        if len(alike) == 1:
            return alike[0]
        raise SettingError(
            f"{name}: unknown {name.replace('_', ' ')} '{_short(value)}'; choose one of: {', '.join(words)}."
        )
    raise SettingError(f"{name} is {described(value)}; choose one of: {', '.join(words)}.")


_SEPARATORS = re.compile(r"[\s;，；、]+|,(?=\s|$)")
_AMBIGUOUS = re.compile(r"[+-]?\d+,\d+")


def numbers(written: str, name: str, decimal_comma: bool = True) -> list[float]:
    """Weights written as '1, 0.5', '1,0.5,0.5', '1;0.5' or a line each -> [1.0, 0.5].

    decimal_comma: refuse what may be one number with a comma or two numbers: '0,5' alone, not '0,0.5' or '0,5,1'.
    """
    words = [word.strip(",") for word in _SEPARATORS.split(text(written, name))]
    if decimal_comma and "." not in written and any(_AMBIGUOUS.fullmatch(word) for word in words):
        raise SettingError(
            f"{name} '{_short(written)}' may be read in two ways. Write numbers with a point, separated by a comma and a "
            "space: '1.0, 0.5'."
        )
    return [_written(each, written, name) for word in words for each in word.split(",") if each]


def _written(word: str, whole_text: str, name: str) -> float:
    try:
        made = float(word)
    except ValueError:
        made = math.nan
    if math.isfinite(made) and abs(made) <= LARGEST_WEIGHT:
        return made
    raise SettingError(
        f"{name} '{_short(whole_text)}': '{_short(word)}' must be {_range(-LARGEST_WEIGHT, LARGEST_WEIGHT)}. Write "
        "numbers with a point, separated by a comma and a space: '1.0, 0.5'."
    )


def named_weights(value: Any, name: str) -> dict[str, float]:
    """Weights by block. Raises MismatchError for anything but a mapping, SettingError for a weight that cannot be."""
    if not isinstance(value, Mapping):
        raise MismatchError(f"{name} is {described(value)}; it must hold a weight for each block.")
    return {str(key): weight(each, f"{name}: {key}") for key, each in value.items()}


# --- tensors -----------------------------------------------------------------------------------------------------


def pictures(value: Any, name: str, alpha: bool = False) -> Tensor:
    """Pictures (n, H, W, 1, 3 or 4) -> (n, H, W, 3), fp32: grey becomes RGB, alpha is left out (alpha: both stay).

    Singletons around a batch mean nothing. Bytes are 0..255, floats 0..1.
    """
    images = _in_units(_plain_tensor(value, name, "pictures"), name)
    while images.ndim > 4 and 1 in images.shape[:2]:
        images = images.squeeze(tuple(images.shape).index(1))
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.numel() == 0:
        raise MismatchError(
            f"{name} has shape {tuple(images.shape)}; expected (batch, height, width, c) of 1, 3 or 4 channels,"
            " none of them 0."
        )
    require_finite(images, name, LARGEST_PIXEL, "pixels")
    return images if alpha else images[..., :3].expand(-1, -1, -1, 3)


def masks(value: Any, name: str) -> Tensor:
    """A mask (H, W), masks (n, H, W), or either with singletons, (n, 1, H, W), (n, 1, 1, H, W) -> (n, H, W), fp32."""
    given = _in_units(_plain_tensor(value, name, "a mask"), name)
    made = _without_singletons(given[None] if given.ndim == 2 else given)
    if made.ndim != 3 or made.numel() == 0:
        raise MismatchError(
            f"{name} has shape {tuple(given.shape)}; expected (batch, height, width), none of them 0."
        )
    require_finite(made, name, LARGEST_MASK, "values")
    return made


def _without_singletons(given: Tensor) -> Tensor:
    """More than three dimensions without those of length 1 that mean nothing: (n, 1, H, W), (n, H, W, 1), (1, n, H, W).

    One picture as (1, H, W, 3) stays: it is no mask.
    """
    while given.ndim > 3:
        middle = [axis for axis in range(1, given.ndim - 2) if given.shape[axis] == 1]
        last = [given.ndim - 1] if given.shape[-1] == 1 else []
        first = [0] if given.shape[0] == 1 and given.shape[-1] > 4 else []
        singletons = [*middle, *last, *first]
        if not singletons:
            break
        given = given.squeeze(singletons[0])
    return given


def embeds(value: Any, name: str) -> Tensor:
    """Features of pictures, (n, width) to (2, n, tokens, width), fp32."""
    made = _plain_tensor(value, name, "embeds")
    if not (made.is_floating_point() and 2 <= made.ndim <= 4 and made.numel()):
        raise MismatchError(
            f"{name} is {described(made)}; expected embeds, features (n, width) or (n, tokens, width), none of them 0."
        )
    require_finite(made, name, LARGEST_FEATURE, "numbers")
    return made.float()


def require_finite(tensor: Tensor, name: str, largest: float = math.inf, what: str = "numbers") -> None:
    """Raise MismatchError where a number is NaN or infinite, or beyond `largest`. Reads the device once."""
    low, high = _bounds(tensor)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MismatchError(
            f"{name} holds {what} that are not finite (NaN or infinity). Look at what is connected there, "
            "and make it again."
        )
    if max(-low, high) > largest:
        raise MismatchError(
            f"{name} holds {what} up to {max(-low, high):g}; at most {largest:g} makes sense there."
        )


def broken_tensor(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds NaN or infinity."""
    return next((name for name, tensor in tensors if not all(map(math.isfinite, _bounds(tensor)))), None)


def refuse_strip(images: Tensor, name: str) -> None:
    """Raise MismatchError for pictures (n, H, W, c) so long that nothing sensible can be cut from them."""
    height, width = images.shape[1:3]
    if max(height, width) > LONGEST * min(height, width):
        raise MismatchError(
            f"{name} is {width} x {height} pixels, more than {LONGEST} times as long as wide. Cut out the part "
            "that matters first."
        )


def _bounds(tensor: Tensor) -> tuple[float, float]:
    """Least and greatest number, NaN if there is one; one pass, no copy but of types that cannot be compared."""
    if tensor.numel() == 0 or tensor.is_meta:
        return 0.0, 0.0
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()
    low, high = torch.stack(tensor.detach().aminmax()).tolist()
    return float(low), float(high)


def _plain_tensor(value: Any, name: str, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise MismatchError(f"{name} is {described(value)}; connect {what}.")
    usable = value.layout is torch.strided and not (value.is_meta or value.is_nested or value.is_quantized)
    if not usable or value.is_complex():
        raise MismatchError(
            f"{name} is a tensor of {value.dtype} that cannot be read as plain numbers; connect {what}."
        )
    return value.detach()


def _in_units(tensor: Tensor, name: str) -> Tensor:
    """fp32; bytes as parts of 255, unless none is over 1."""
    if tensor.is_floating_point() or tensor.dtype is torch.bool:
        return tensor.float()
    if tensor.dtype is torch.uint8:
        return tensor.float() / (255 if tensor.numel() and int(tensor.max()) > 1 else 1)
    raise MismatchError(
        f"{name} has whole numbers of {tensor.dtype}; expected fractions in 0..1, or bytes in 0..255."
    )


# --- parts of messages -------------------------------------------------------------------------------------------


def _listed(value: Any) -> Any:
    """Tensors and arrays as lists, numbers of theirs as numbers; anything else as it is."""
    if isinstance(value, Tensor):
        return None if value.is_meta else value.tolist()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _single(value: Any) -> Any:
    """The one element of a list, a tensor or an array with one; anything else as it is."""
    given = _listed(value)
    while isinstance(given, list | tuple) and len(cast("list[Any]", given)) == 1:
        given = cast("list[Any]", given)[0]
    return given


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    if math.isinf(high):
        return f"a number of {low:g} or more"
    return f"a number from {low:g} to {high:g}"


def _short(shown: str) -> str:
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def described(value: Any) -> str:
    """A value in a few words: numbers and texts as they are, of others what they are."""
    if value is None:
        return "empty (None): what is connected there gives nothing"
    if isinstance(value, str):
        return f"'{_short(value)}'"
    if isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a number of more than 18 digits"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
    if isinstance(value, list | tuple):
        return f"a list of {len(cast('list[Any]', value))}"
    return f"a {type(value).__name__}"
