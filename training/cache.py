"""Where encoded pictures are kept: in memory, or on disk, one file for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..ipadapter_core.files.writing import replacing

# latents, features, context and, for SDXL, pooled; the first dimension is pictures
Rows = dict[str, Tensor]


class Disk(MutableMapping[str, Rows]):
    """One .safetensors file for each picture."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def __getitem__(self, key: str) -> Rows:
        """Raises KeyError for a damaged file too: it is written again."""
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            raise KeyError(key) from None

    def __setitem__(self, key: str, rows: Rows) -> None:
        # another process may write the same
        with replacing(self._path(key), SafetensorError) as part:
            save_file(rows, part)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in self.folder.glob("*/*.safetensors"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def free(self) -> int:
        """Bytes that are left on the disk."""
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        return shutil.disk_usage(place).free
