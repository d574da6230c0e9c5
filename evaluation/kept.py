"""Embeddings kept in a file, so that a second run encodes nothing: by encoder, and by path, size and time of the picture."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..ipadapter_core.errors import shown
from ..ipadapter_core.files.writing import replacing

log = logging.getLogger("image_prompt.evaluation")
_DIGEST = 32


class Kept:
    """Embeddings of one encoder, by what they are of. folder: None to keep nothing beyond this run. most: how many of the
    last ones are kept; None for all."""

    def __init__(self, folder: Path | None, identity: str, most: int | None = None):
        name = f"{re.sub(r'[^A-Za-z0-9.-]', '_', identity)[:60]}-{_hash(identity)[:8]}.safetensors"
        self.path = None if folder is None else folder / name
        self.identity, self.most, self._changed = identity, most, False
        self._rows: dict[str, Tensor] = self._read()

    def _read(self) -> dict[str, Tensor]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            stored = load_file(self.path)
            keys = [bytes(row).hex() for row in stored["keys"].tolist()]
            return dict(zip(keys, stored["rows"].unbind(), strict=True))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("%s cannot be read and is made again (%s)", shown(self.path), shown(error))
            return {}

    def of_file(self, path: Path) -> str:
        """The key of a picture's file."""
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return _hash(f"{path}|nothing")
        return _hash(f"picture|{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}")

    def of_picture(self, picture: Image.Image) -> str:
        """The key of a picture in memory: of its pixels."""
        digest = hashlib.sha256(f"pixels|{picture.mode}|{picture.size}|".encode())
        digest.update(picture.tobytes())
        return digest.hexdigest()

    def of_text(self, text: str) -> str:
        return _hash(f"text|{text}")

    def get(self, key: str) -> Tensor | None:
        return self._rows.get(key)

    def put(self, keys: Sequence[str], rows: Tensor) -> None:
        self._rows |= dict(zip(keys, rows.unbind(), strict=True))
        self._changed = self._changed or bool(keys)

    def save(self) -> None:
        """Write what is new. Raises WriteError."""
        if self.path is None or not self._changed:
            return
        last = list(self._rows)[-self.most :] if self.most else list(self._rows)
        keys = torch.tensor([list(bytes.fromhex(key)) for key in last], dtype=torch.uint8)
        tensors = {"keys": keys.view(-1, _DIGEST), "rows": torch.stack([self._rows[key] for key in last])}
        with replacing(self.path, SafetensorError) as part:
            save_file(tensors, part, {"encoder": self.identity})
        self._changed = False


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
