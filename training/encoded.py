"""What the UNet and the adapter see of pictures and captions: encoded once, kept in memory or on disk if wished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
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
from ..ipadapter_core.training.batches import Frame, Size, frame
from .pictures import Pictures

Rows = dict[str, Tensor]  # latents, features, context and, for SDXL, pooled; the first dimension is pictures
READERS = 4
FORMAT = 2  # goes up where the same pictures and captions are encoded otherwise: deep pictures, captions as plain text


class Disk(MutableMapping[str, Rows]):
    """One .safetensors file for each picture."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def __getitem__(self, key: str) -> Rows:
        """A damaged one is as good as none: it is made again."""
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            raise KeyError(key) from None

    def __setitem__(self, key: str, rows: Rows) -> None:
        with replacing(self._path(key), SafetensorError) as part:  # another process may write the same
            save_file(rows, part)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self):
        return (path.stem for path in self.folder.glob("*/*.safetensors"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Encodings:
    """Batches of encoded pictures. store: where encodings are kept, None to encode anew every time."""

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
        self.frames: list[Frame] = [frame(own, sizes) for own in pictures.sizes]
        self._readers = ThreadPoolExecutor(READERS)
        self._reading: dict[int, Future[Tensor]] = {}
        self.no_text = base.texts([""])
        self.no_image = base.no_features(kind)
        self._encoders = self._fingerprint() if store is not None else ""

    @property
    def feature_width(self) -> int:
        return self.no_image.shape[-1]

    def expect(self, numbers: Sequence[int]) -> None:
        """Begin to read these pictures, which come next."""
        if self.store is None:
            self._reading = {n: self._readers.submit(self.pictures.picture, n) for n in set(numbers)}

    def batch(self, numbers: Sequence[int]) -> tuple[Rows, list[Frame]]:
        """Rows of pictures of one bucket. A picture that turns out broken is left out for another of its size."""
        rows = [self._row(number) for number in numbers]
        stacked = {name: torch.cat([row[name] for row, _ in rows]) for name in rows[0][0]}
        return stacked, [shape for _, shape in rows]

    def _row(self, number: int) -> tuple[Rows, Frame]:
        bucket = self.frames[number].bucket
        for other in (number, *(n for n, shape in enumerate(self.frames) if shape.bucket == bucket)):
            if self.pictures.records[other].name not in self.pictures.left_out:
                rows = self._kept(other)
                if rows is not None:
                    return rows, self.frames[other]
        raise SettingError(
            f"no picture of {bucket[1]} x {bucket[0]} is left that can be read: {self.pictures.summary}."
        )

    def _kept(self, number: int) -> Rows | None:
        """None where the picture cannot be read after all."""
        key = "" if self.store is None else self._key(number)
        kept = None if self.store is None else self.store.get(key)
        if kept is not None:
            return kept
        try:
            reading = self._reading.pop(number, None)
            picture = reading.result() if reading else self.pictures.picture(number)
        except Exception as error:  # decoders raise anything
            self.pictures.leave_out(self.pictures.records[number], error)
            return None
        rows = self._encode(number, picture)
        if self.store is not None:
            self.store[key] = rows
        return rows

    def _key(self, number: int) -> str:
        record, shape = self.pictures.records[number], self.frames[number]
        told = [
            FORMAT,
            self._encoders,
            self.kind.value,
            record.key,
            record.caption,
            shape.resized,
            shape.corner,
            shape.bucket,
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _encode(self, number: int, picture: Tensor) -> Rows:
        texts = self.base.texts([self.pictures.records[number].caption])
        rows = {
            "latents": self.base.latents(framed(picture, self.frames[number])),
            "features": self.base.features(self.kind, picture),
            "context": texts.context,
        }
        return rows if texts.pooled is None else {**rows, "pooled": texts.pooled}

    def _fingerprint(self) -> str:
        """Of the encoders: what they make of a test card. Other encoders must not find these encodings."""
        card = torch.linspace(0, 1, 64 * 64 * 3).view(1, 64, 64, 3)
        texts = self.base.texts(["a test card"])
        made = [self.base.latents(card), self.base.features(self.kind, card), texts.context]
        state = hashlib.sha256()
        for tensor in made:
            state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()


def framed(picture: Tensor, shape: Frame) -> Tensor:
    """Picture (1, H, W, 3), resized and cut as its frame says: (1, h, w, 3). Bilinear with antialiasing."""
    moved = picture.movedim(-1, 1)
    if moved.shape[-2:] != shape.resized:
        moved = F.interpolate(moved, size=shape.resized, mode="bilinear", antialias=True)
    (top, left), (height, width) = shape.corner, shape.bucket
    return moved[..., top : top + height, left : left + width].movedim(1, -1).clamp(0, 1).contiguous()


def texts_of(rows: Mapping[str, Tensor], drop: Tensor, nothing: Texts) -> Texts:
    """The batch's texts, with those marked in drop (n,) replaced by the empty caption's."""
    context = torch.where(drop[:, None, None], nothing.context, rows["context"])
    if nothing.pooled is None or "pooled" not in rows:
        return Texts(context, None)
    return Texts(context, torch.where(drop[:, None], nothing.pooled, rows["pooled"]))


def features_of(rows: Mapping[str, Tensor], drop: Tensor, nothing: Tensor) -> Tensor:
    """The batch's features, with those marked in drop (n,) replaced by what stands for 'no image'."""
    shape = (-1,) + (1,) * (rows["features"].ndim - 1)
    return torch.where(drop.view(shape), nothing, rows["features"])
