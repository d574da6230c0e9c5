"""Pictures and captions as the UNet and the adapter read them: encoded once, cached in memory or on disk if wanted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ipadapter_core.errors import ImagePromptError, SettingError
from ..ipadapter_core.training.base import Base, Texts, to_length
from ..ipadapter_core.training.batches import CropInfo, Crops, Size
from ..ipadapter_core.training.config import CaptionChoice, Latents, TrainingConfig
from ..ipadapter_core.training.noise import View
from ..ipadapter_core.variant import Variant
from .cache import Rows
from .pictures import Pictures

READERS = 4
# raised when the same pictures and captions are encoded differently: deep pictures, captions as plain text
FORMAT = 2
_SEEN = View()
# captions whose length is looked at, to say how much room all take
_FIRST = 100


@dataclass(frozen=True)
class Shown:
    """One picture as one batch shows it."""

    number: int
    crop: CropInfo
    flip: bool
    caption: str


@dataclass
class _Read:
    """What was found in the cache, and the pictures that are left to encode: for the UNet, and as image prompt."""

    rows: Rows
    picture: Tensor | None = None
    reference: Tensor | None = None


class Encodings:
    """Batches of encoded pictures. store: the cache, None to encode every time. half: cached in half precision."""

    def __init__(
        self,
        base: Base,
        config: TrainingConfig,
        pictures: Pictures,
        sizes: Sequence[Size],
        store: MutableMapping[str, Rows] | None = None,
        half: bool = False,
    ):
        if not len(pictures):
            raise SettingError(f"there is no picture to train on: {pictures.summary}.")
        self.base, self.config, self.pictures, self.store = base, config, pictures, store
        self.half = half and store is not None
        self.crops = Crops(pictures.sizes, sizes)
        self._readers = ThreadPoolExecutor(READERS)
        self._reading: dict[Shown, Future[_Read]] = {}
        self.no_text = base.texts([""])
        self.no_image = base.no_features(config.kind)
        self._parts = _parts(config)
        self._encoders = self._fingerprint() if store is not None else ""

    @property
    def feature_width(self) -> int:
        return self.no_image.shape[-1]

    @property
    def shares(self) -> Sequence[float]:
        return self.pictures.shares

    @property
    def bytes(self) -> int:
        """Of all encodings, as they are cached; each picture shown in one way."""
        rest = [self.no_image, self._long_text().context, self.no_text.pooled]
        fixed = sum(tensor.numel() for tensor in rest if tensor is not None)
        channels = self.base.latent_channels * (2 if self.config.latents is Latents.SAMPLED else 1)
        buckets = Counter(crop.bucket for crop in self.crops)
        numbers = sum((fixed + channels * h * w // 64) * count for (h, w), count in buckets.items())
        return numbers * (2 if self.half else 4)

    def _long_text(self) -> Texts:
        """Of the longest of the first captions, where texts differ in length."""
        if self.no_text.lengths is None:
            return self.no_text
        first = (self.pictures.records[n].caption for n in range(min(len(self.pictures), _FIRST)))
        return self.base.texts([max(first, key=len)])

    def prefetch(self, numbers: Sequence[int], views: Sequence[View] = ()) -> None:
        """Start to read these pictures, or their encodings, which are next."""
        shown = set(self._shown(numbers, views))
        self._reading = {each: self._readers.submit(self._read, each) for each in shown}

    def batch(self, numbers: Sequence[int], views: Sequence[View] = ()) -> tuple[Rows, list[CropInfo]]:
        """Rows of pictures of one bucket. A picture that cannot be read after all is replaced by another of its bucket."""
        shown = self._shown(numbers, views)
        known: dict[Shown, Rows] = {}
        while missing := [each for each in dict.fromkeys(shown) if each not in known]:
            known |= self._encoded(missing, len(numbers))
            shown = [each if each in known else self._another(each) for each in shown]
        rows = [known[each] for each in shown]
        return _stacked(rows, self.no_text.lengths is not None), [each.crop for each in shown]

    def _shown(self, numbers: Sequence[int], views: Sequence[View]) -> list[Shown]:
        pairs = zip(numbers, views or repeat(_SEEN), strict=bool(views))
        return [self._as_shown(number, view) for number, view in pairs]

    def _as_shown(self, number: int, view: View) -> Shown:
        crop = self.crops[number].at_place(view.place, self.config.crops, self.config.seed)
        return Shown(number, crop, view.flip, self.pictures.records[number].caption_at(view.caption))

    def _another(self, shown: Shown) -> Shown:
        """The first picture of its bucket that can be read."""
        bucket, left_out = shown.crop.bucket, self.pictures.left_out
        for number, crop in enumerate(self.crops):
            if crop.bucket == bucket and self.pictures.records.name(number) not in left_out:
                return self._as_shown(number, _SEEN)
        raise SettingError(
            f"no picture of {bucket[1]} x {bucket[0]} is left that can be read: {self.pictures.summary}."
        )

    def _encoded(self, shown: Sequence[Shown], count: int) -> dict[Shown, Rows]:
        """From the cache, else encoded together. Pictures that cannot be read or encoded are left out of it, and reported.

        count: rows of a batch: whatever is missing, encoders get as many, so that their results do not depend on it.
        """
        reads = {each: read for each in shown if (read := self._ready(each))}
        self._encode_latents({e: r for e, r in reads.items() if r.picture is not None}, count)
        self._encode_features({e: r for e, r in reads.items() if r.reference is not None}, count)
        for each, read in reads.items():
            if "context" not in read.rows:
                texts = self.base.texts([each.caption])
                read.rows["context"] = texts.context
                read.rows |= {} if texts.pooled is None else {"pooled": texts.pooled}
            if read.picture is not None or read.reference is not None or len(self._parts) > 1:
                self._keep(each, read)
        return {each: read.rows for each, read in reads.items() if "features" in read.rows}

    def _ready(self, shown: Shown) -> _Read | None:
        if self.pictures.records.name(shown.number) in self.pictures.left_out:
            return None
        try:
            reading = self._reading.pop(shown, None)
            return reading.result() if reading else self._read(shown)
        # decoders raise anything
        except Exception as error:
            self.pictures.leave_out(self.pictures.records[shown.number], error)
            return None

    def _read(self, shown: Shown) -> _Read:
        rows: Rows = {}
        if self.store is not None:
            for part in self._parts:
                rows |= self.store.get(self._key(shown, part)) or {}
        read = _Read(rows)
        record = self.pictures.records[shown.number]
        picture = None
        if "latents" not in rows or ("features" not in rows and record.reference is None):
            picture = _flipped(self.pictures.picture(shown.number), shown.flip)
        if "latents" not in rows and picture is not None:
            read.picture = cropped(picture, shown.crop)
        if "features" not in rows:
            own = record.reference is None and picture is not None
            read.reference = picture if own else _flipped(self.pictures.reference(shown.number), shown.flip)
        return read

    def _encode_latents(self, reads: Mapping[Shown, _Read], count: int) -> None:
        if reads:
            pictures = [read.picture for read in reads.values() if read.picture is not None]
            encoded = self.base.latents(torch.cat(_filled_up(pictures, count)))
            for read, row in zip(reads.values(), encoded.split(1), strict=False):
                read.rows["latents"] = self._rounded(row)

    def _encode_features(self, reads: Mapping[Shown, _Read], count: int) -> None:
        kind = self.config.kind
        pictures = {each: read.reference for each, read in reads.items() if read.reference is not None}
        if not pictures:
            return
        if kind is not Variant.FACEID:
            encoded = self.base.features(kind, *_filled_up(list(pictures.values()), count))
            for each, row in zip(pictures, encoded.split(1), strict=False):
                reads[each].rows["features"] = self._rounded(row)
            return
        for each, picture in pictures.items():
            try:
                reads[each].rows["features"] = self._rounded(self.base.features(kind, picture))
            except ImagePromptError as error:
                self.pictures.leave_out(self.pictures.records[each.number], error)

    def _rounded(self, row: Tensor) -> Tensor:
        # of its own memory: else a cache holds the whole batch
        return row.half() if self.half else row.clone()

    def _keep(self, shown: Shown, read: _Read) -> None:
        if self.store is None or "features" not in read.rows:
            return
        if self.half:
            read.rows = {name: row.half() for name, row in read.rows.items()}
        for part in self._parts:
            key = self._key(shown, part)
            if len(self._parts) == 1 or key not in self.store:
                self.store[key] = {name: read.rows[name] for name in part if name in read.rows}

    def _key(self, shown: Shown, part: Sequence[str]) -> str:
        """Of one part of a picture's encodings: a hash of all that decides it."""
        record, crop = self.pictures.records[shown.number], shown.crop
        parts: list[object] = [FORMAT, self._encoders, self.config.kind.value, record.key, shown.caption]
        parts += [crop.resized, crop.top_left, crop.bucket]
        if len(self._parts) > 1:
            seen: list[object] = [record.key, shown.flip]
            decides = {
                "latents": [*seen, crop.resized, crop.top_left, crop.bucket],
                "features": seen,
                "context": [shown.caption],
            }
            parts = [*parts[:3], part[0], *decides[part[0]]]
        if self.half:
            parts.append("fp16")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _fingerprint(self) -> str:
        """Of the encoders: a hash of a test card's encodings. Other encoders must not find what these cached."""
        card = torch.linspace(0, 1, 64 * 64 * 3).view(1, 64, 64, 3)
        texts = self.base.texts(["a test card"])
        faces = self.config.kind is Variant.FACEID
        features = self.no_image if faces else self.base.features(self.config.kind, card)
        digest = hashlib.sha256()
        for tensor in (self.base.latents(card), features, texts.context):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _parts(config: TrainingConfig) -> tuple[tuple[str, ...], ...]:
    """What is cached together: each part by itself where a picture is shown in several ways."""
    if config.flip or config.crops > 1 or config.captions is CaptionChoice.RANDOM:
        return ("latents",), ("features",), ("context", "pooled")
    return (("latents", "features", "context", "pooled"),)


def _stacked(rows: Sequence[Rows], lengths: bool) -> Rows:
    """Rows of single pictures as those of a batch. lengths: of texts too, which are filled up to the longest."""
    tokens = [row["context"].shape[1] for row in rows]
    if not lengths:
        return {name: torch.cat([row[name] for row in rows]).float() for name in rows[0]}
    rows = [{**row, "context": to_length(row["context"], max(tokens))} for row in rows]
    return {**_stacked(rows, False), "lengths": torch.tensor(tokens)}


def _filled_up(pictures: list[Tensor], count: int) -> list[Tensor]:
    return pictures + pictures[-1:] * (count - len(pictures))


def _flipped(picture: Tensor, flip: bool) -> Tensor:
    return picture.flip(2) if flip else picture


def cropped(picture: Tensor, crop: CropInfo) -> Tensor:
    """Picture (1, H, W, 3), resized and cropped: (1, h, w, 3). Bilinear with antialiasing."""
    moved = picture.movedim(-1, 1)
    if moved.shape[-2:] != crop.resized:
        moved = F.interpolate(moved, size=crop.resized, mode="bilinear", antialias=True)
    (top, left), (height, width) = crop.top_left, crop.bucket
    return moved[..., top : top + height, left : left + width].movedim(1, -1).clamp(0, 1).contiguous()


def drawn_latents(latents: Tensor, noise: Tensor) -> Tensor:
    """Latents (n, c, h, w); of means and standard deviations (n, 2c, h, w), drawn by noise (n, c, h, w)."""
    if latents.shape == noise.shape:
        return latents
    mean, std = latents.chunk(2, dim=1)
    return mean + std * noise


def texts_of(rows: Mapping[str, Tensor], drop: Tensor, no_text: Texts) -> Texts:
    """The batch's texts, with those marked in drop (n,) replaced by the empty caption's."""
    length = max(no_text.context.shape[1], rows["context"].shape[1])
    empty, own = (to_length(context, length) for context in (no_text.context, rows["context"]))
    context = torch.where(drop[:, None, None], empty, own)
    pooled = lengths = None
    if no_text.pooled is not None and "pooled" in rows:
        pooled = torch.where(drop[:, None], no_text.pooled, rows["pooled"])
    if no_text.lengths is not None:
        lengths = torch.where(drop, no_text.lengths, rows["lengths"])
    return Texts(context, pooled, lengths)


def features_of(rows: Mapping[str, Tensor], drop: Tensor, no_image: Tensor) -> Tensor:
    """The batch's features, with those marked in drop (n,) replaced by what stands for 'no image'."""
    shape = (-1,) + (1,) * (rows["features"].ndim - 1)
    return torch.where(drop.view(shape), no_image, rows["features"])
