"""Pictures from files and servers: whole, of a known format and of bounded size."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

from PIL import Image

from ..ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.pictures.reading import read_image

FILE_BYTES = 256 << 20
PIXELS = 8192 * 8192
# in the name of a file
_ODD = re.compile(r"[^\w.-]", re.ASCII)
# without those that Pillow opens by starting other programs, such as EPS
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
# what Pillow raises for damaged data, by format
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def file_bytes(path: Path) -> bytes:
    """Content of a picture's file. Raises MissingFileError where it cannot be read, SettingError for one too large."""
    try:
        if not path.is_file():
            raise MissingFileError(f"{shown(path)} is no file. Give the path of a picture.")
        size = path.stat().st_size
        if size > FILE_BYTES:
            raise SettingError(
                f"{shown(path)} has {size / 2**20:.0f} MB; a picture has at most {FILE_BYTES >> 20} MB. Save it smaller."
            )
        return path.read_bytes()
    except OSError as error:
        raise MissingFileError(
            f"{shown(path)} cannot be read: {shown(error.strerror or error)}. Check the file and its rights."
        ) from error


def plain_name(name: str) -> str:
    """A file name that every disk and server accepts; a changed one ends in a hash, so that names still differ."""
    safe = _ODD.sub("_", name)
    if safe == name and len(name) <= 120 and name.strip("."):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem, dot, suffix = safe.rpartition(".")
    return f"{stem[:80]}-{digest}{dot}{suffix[:10]}"


def picture_of(content: bytes) -> Image.Image:
    """Decoded, RGB with 8 bits. Raises SettingError for no picture, a damaged one, or one of too many pixels."""
    try:
        return read_image(_opened(content))
    except ImagePromptError:
        raise
    except _DAMAGED as error:
        raise SettingError(_reason(error)) from error


def require_whole(path: Path) -> None:
    """Raise SettingError for a damaged or incomplete file; a PNG is checked by its checksums, without decoding."""
    try:
        _opened(file_bytes(path)).verify()
    except ImagePromptError:
        raise
    except _DAMAGED as error:
        raise SettingError(_reason(error)) from error


def opened(picture: Image.Image | Path) -> Image.Image:
    """Decoded, RGB with 8 bits. Raises as `picture_of`, with the file's name."""
    if isinstance(picture, Image.Image):
        return read_image(picture)
    content = file_bytes(picture)
    try:
        return picture_of(content)
    except ImagePromptError as error:
        raise SettingError(f"{shown(picture)} cannot be used: {error}") from error


def _opened(content: bytes) -> Image.Image:
    """Opened, the header read only."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    image = Image.open(io.BytesIO(content), formats=known)
    if image.width * image.height > PIXELS:
        raise SettingError(
            f"it has {image.width} x {image.height} pixels; up to {PIXELS / 1e6:.0f} megapixels are taken. Save it smaller."
        )
    return image


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no picture. Use PNG, JPEG or WebP."
    return f"the picture is damaged ({shown(' '.join(str(error).split()) or type(error).__name__)}). Make or copy it again."
