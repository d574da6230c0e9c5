"""The one reader of picture files: what Pillow opens, upright, in RGB, at any bit depth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from ..errors import ImagePromptError

Values = NDArray[np.float32]
Source = bytes | Path | BinaryIO | Image.Image

# The EXIF tag, and its values that swap the sides.
ORIENTATION, SIDEWAYS = 0x0112, {5, 6, 7, 8}
# TIFF tags, and values of the last two.
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2
SIXTEEN = 65535.0

# Modes of 8 bits, and the mode through which they are converted to RGB: Pillow converts premultiplied colours in two steps.
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_VIA: dict[str, str] = {**dict.fromkeys(_EIGHT_BITS, "RGB"), "La": "LA", "RGBa": "RGBA"}
# Formats in which Pillow gives 16 bits whenever it gives whole numbers of 32.
_SIXTEEN_IN_32 = {"PNG", "PPM", "JPEG2000"}


def read_values(source: Source) -> Values:
    """(H, W, 3) in 0..1. Raises ImagePromptError where a picture's scale is unknown, and Pillow's own errors for damaged
    data."""
    with _opened(source) as image:
        if image.mode in _VIA:
            return np.divide(np.asarray(_rgb(image), dtype=np.float32), np.float32(255), dtype=np.float32)
        return np.repeat(_grey(image)[..., None], 3, axis=-1)


def read_image(source: Source) -> Image.Image:
    """The same as an image of 8 bits."""
    with _opened(source) as image:
        if image.mode in _VIA:
            return _rgb(image)
        return Image.fromarray(np.rint(_grey(image) * 255).astype(np.uint8)).convert("RGB")


def read_size(source: Source) -> tuple[int, int]:
    """(height, width) after reading. From the header alone where that suffices; else raises as read_values."""
    with _opened(source) as image:
        sideways = _exif_of(image).get(ORIENTATION) in SIDEWAYS
        # Pillow's TIFF reader turns the picture itself, and the size before or after it by its version
        if image.mode in _VIA and not (sideways and image.format == "TIFF"):
            return image.size if sideways else (image.height, image.width)
        height, width = read_values(image).shape[:2]
        return height, width


def _exif_of(image: Image.Image) -> Image.Exif:
    """As Pillow reads it, which decodes a whole PNG without EXIF, as it may come behind the pixels."""
    if not isinstance(image, PngImageFile) or image.fp is None or "exif" in image.info:
        return image.getexif()
    if _ends_with_text(image):
        return image.getexif()
    return Image.Image.getexif(image)


def _ends_with_text(image: PngImageFile) -> bool:
    """Whether chunks that may hold EXIF come behind the pixels; nothing but the heads of chunks is read."""
    file: Any = image.fp
    before = file.tell()
    try:
        file.seek(8)
        pixels = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels |= kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
        return False
    finally:
        file.seek(before)


def _opened(source: Source) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _rgb(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image).convert(_VIA[image.mode]).convert("RGB")


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
    """The value of white. TIFF stores 12 bits unscaled."""
    bits = tags.get(BITS)
    return SIXTEEN if not isinstance(bits, tuple) or bits[0] >= 16 else float(2 ** bits[0] - 1)


def _whole_numbers(image: Image.Image, values: NDArray[np.int64], tags: dict[int, Any]) -> Values:
    """Values of 8, 16 or 32 bits in 32. The greatest one shows which, where it is in the upper half of a scale."""
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
