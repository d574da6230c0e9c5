"""Pictures and captions as the UNet and the adapter read them: encoded once, cached in memory or on disk if wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.files.writing import replacing
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.training.base import Base, Texts
from ..ipadapter_core.training.batches import CropInfo, Size, crop_info
from .pictures import Pictures

# latents, features, context and, for SDXL, pooled; the first dimension is pictures
Rows = dict[str, Tensor]
READERS = 4
# raised when the same pictures and captions are encoded differently: deep pictures, captions as plain text
FORMAT = 2


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


class Encodings:
    """Batches of encoded pictures. store: the cache, None to encode every time."""

    def __init__(
        self,
        base: Base,
        kind: Variant,
        pictures: Pictures,
        sizes: Sequence[Size],
        store: MutableMapping[str, Rows] | None = None,
    ):
        if not len(pictures):
            raise SettingError(f"there is no picture to train on: {pictures.summary}.")
        self.base, self.kind, self.pictures, self.store = base, kind, pictures, store
        self.crops: list[CropInfo] = [crop_info(size, sizes) for size in pictures.sizes]
        self._readers = ThreadPoolExecutor(READERS)
        self._reading: dict[int, Future[Tensor]] = {}
        self.no_text = base.texts([""])
        self.no_image = base.no_features(kind)
        self._encoders = self._fingerprint() if store is not None else ""

    @property
    def feature_width(self) -> int:
        return self.no_image.shape[-1]

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Start to read these pictures, which are next."""
        if self.store is None:
            self._reading = {n: self._readers.submit(self.pictures.picture, n) for n in set(numbers)}

    def batch(self, numbers: Sequence[int]) -> tuple[Rows, list[CropInfo]]:
        """Rows of pictures of one bucket. A picture that cannot be read after all is replaced by another of its bucket."""
        rows = [self._row(number) for number in numbers]
        stacked = {name: torch.cat([row[name] for row, _ in rows]) for name in rows[0][0]}
        return stacked, [crop for _, crop in rows]

    def _row(self, number: int) -> tuple[Rows, CropInfo]:
        bucket = self.crops[number].bucket
        for other in (number, *(n for n, crop in enumerate(self.crops) if crop.bucket == bucket)):
            if self.pictures.records[other].name not in self.pictures.left_out:
                rows = self._rows_of(other)
                if rows is not None:
                    return rows, self.crops[other]
        raise SettingError(
            f"no picture of {bucket[1]} x {bucket[0]} is left that can be read: {self.pictures.summary}."
        )

    def _rows_of(self, number: int) -> Rows | None:
        """From the cache, else encoded. None where the picture cannot be read after all."""
        key = "" if self.store is None else self._key(number)
        cached = None if self.store is None else self.store.get(key)
        if cached is not None:
            return cached
        try:
            reading = self._reading.pop(number, None)
            picture = reading.result() if reading else self.pictures.picture(number)
        # decoders raise anything
        except Exception as error:
            self.pictures.leave_out(self.pictures.records[number], error)
            return None
        rows = self._encode(number, picture)
        if self.store is not None:
            self.store[key] = rows
        return rows

    def _key(self, number: int) -> str:
        record, crop = self.pictures.records[number], self.crops[number]
        parts: list[object] = [FORMAT, self._encoders, self.kind.value, record.key, record.caption]
        parts += [crop.resized, crop.top_left, crop.bucket]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _encode(self, number: int, picture: Tensor) -> Rows:
        texts = self.base.texts([self.pictures.records[number].caption])
        rows = {
            "latents": self.base.latents(cropped(picture, self.crops[number])),
            "features": self.base.features(self.kind, picture),
            "context": texts.context,
        }
        return rows if texts.pooled is None else {**rows, "pooled": texts.pooled}

    def _fingerprint(self) -> str:
        """Of the encoders: a hash of a test card's encodings. Other encoders must not find what these cached."""
        card = torch.linspace(0, 1, 64 * 64 * 3).view(1, 64, 64, 3)
        texts = self.base.texts(["a test card"])
        digest = hashlib.sha256()
        for tensor in (self.base.latents(card), self.base.features(self.kind, card), texts.context):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def cropped(picture: Tensor, crop: CropInfo) -> Tensor:
    """Picture (1, H, W, 3), resized and cropped: (1, h, w, 3). Bilinear with antialiasing."""
    moved = picture.movedim(-1, 1)
    if moved.shape[-2:] != crop.resized:
        moved = F.interpolate(moved, size=crop.resized, mode="bilinear", antialias=True)
    (top, left), (height, width) = crop.top_left, crop.bucket
    return moved[..., top : top + height, left : left + width].movedim(1, -1).clamp(0, 1).contiguous()


def texts_of(rows: Mapping[str, Tensor], drop: Tensor, no_text: Texts) -> Texts:
    """The batch's texts, with those marked in drop (n,) replaced by the empty caption's."""
    context = torch.where(drop[:, None, None], no_text.context, rows["context"])
    if no_text.pooled is None or "pooled" not in rows:
        return Texts(context, None)
    return Texts(context, torch.where(drop[:, None], no_text.pooled, rows["pooled"]))


def features_of(rows: Mapping[str, Tensor], drop: Tensor, no_image: Tensor) -> Tensor:
    """The batch's features, with those marked in drop (n,) replaced by what stands for 'no image'."""
    shape = (-1,) + (1,) * (rows["features"].ndim - 1)
    return torch.where(drop.view(shape), no_image, rows["features"])
