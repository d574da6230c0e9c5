"""The one reader of picture files: what Pillow opens, upright, in RGB, at its true values whatever its depth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import ImagePromptError

Values = NDArray[np.float32]
Source = bytes | Path | Image.Image

ORIENTATION, SIDEWAYS = 0x0112, {5, 6, 7, 8}  # EXIF; those that swap the sides
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
WHITE_IS_ZERO, SIGNED = 0, 2
SIXTEEN = 65535.0

# Modes of 8 bits, and what they go through to RGB: Pillow converts premultiplied colours in no single step.
_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_THROUGH: dict[str, str] = {**dict.fromkeys(_PLAIN, "RGB"), "La": "LA", "RGBa": "RGBA"}
# Formats in which Pillow gives 16 bits whenever it gives whole numbers of 32.
_SIXTEEN_IN_32 = {"PNG", "PPM", "JPEG2000"}


def read_values(source: Source) -> Values:
    """(H, W, 3) in 0..1. Raises ImagePromptError where a picture's scale is not known, and what Pillow raises of
    damaged data."""
    with _opened(source) as image:
        if image.mode in _THROUGH:
            return np.divide(np.asarray(_rgb(image), dtype=np.float32), np.float32(255), dtype=np.float32)
        return np.repeat(_grey(image)[..., None], 3, axis=-1)


def read_image(source: Source) -> Image.Image:
    """The same as an image of 8 bits."""
    with _opened(source) as image:
        if image.mode in _THROUGH:
            return _rgb(image)
        return Image.fromarray(np.rint(_grey(image) * 255).astype(np.uint8)).convert("RGB")


def read_size(source: Source) -> tuple[int, int]:
    """(height, width) as it is read. Of the header alone where that tells all; else raises what reading would."""
    with _opened(source) as image:
        sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
        # Pillow's TIFF reader turns the picture itself, and the size before or after it by its version
        if image.mode in _THROUGH and not (sideways and image.format == "TIFF"):
            return image.size if sideways else (image.height, image.width)
        height, width = read_values(image).shape[:2]
        return height, width


def _opened(source: Source) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _rgb(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image).convert(_THROUGH[image.mode]).convert("RGB")


def _grey(image: Image.Image) -> Values:
    """One channel of more than 8 bits, (H, W) in 0..1."""
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    values = np.asarray(ImageOps.exif_transpose(image))
    if image.mode.startswith("I;16"):
        found = values / _white_of_bits(tags)
    elif image.mode == "I":
        found = _whole_numbers(image, values.astype(np.int64), tags)
    elif image.mode == "F":
        found = values
        _require(np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1, "floating-point", found)
    else:
        raise ImagePromptError(f"its colours are of mode {image.mode}. Save it in RGB.")
    return (1 - found if inverted else found).astype(np.float32)


def _white_of_bits(tags: dict[int, Any]) -> float:
    """TIFF packs 12 bits as they are."""
    bits = tags.get(BITS)
    return SIXTEEN if not isinstance(bits, tuple) or bits[0] >= 16 else float(2 ** bits[0] - 1)


def _whole_numbers(image: Image.Image, values: NDArray[np.int64], tags: dict[int, Any]) -> Values:
    """32 bits hold numbers of 8, 16 or 32; the brightest one tells which, where it is in the upper half of a scale."""
    if image.format in _SIXTEEN_IN_32:
        return (values / SIXTEEN).astype(np.float32)
    signed = SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1))
    narrow = tags.get(BITS) == (16,)
    values = values if signed else values % 2**32
    scales = () if narrow else (255, 65535, 2**31 - 1 if signed else 2**32 - 1)
    white = next((white for white in scales if white / 2 < values.max() <= white), 0)
    _require(white and values.min() >= 0, "whole", values)
    return (values / white).astype(np.float32)


def _require(known: object, kind: str, values: NDArray[np.generic]) -> None:
    if not known:
        raise ImagePromptError(
            f"it holds {kind} numbers from {values.min():g} to {values.max():g}, of which white is not known. Save it with "
            "8 or 16 bits, or as floating-point numbers from 0 to 1."
        )
