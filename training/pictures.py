"""Pictures with captions: data sets, or a node's tensors. Broken ones are left out and named."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from PIL import UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.pictures.lists import READERS, SUFFIXES
from ..ipadapter_core.pictures.reading import read_size, read_values
from ..ipadapter_core.training.batches import Size
from .data_sets import DataSet
from .records import Place, Read, Record, Records, Sizes
from .sources import Make, makers

log = logging.getLogger(__name__)
# records that are read at a time by all threads, and by each
READING_THREADS, CHUNK, PART = 16, 4096, 64
# seconds that reading may take before a bar shows how far it is
PATIENCE = 0.5


class Pictures:
    """Records whose size could be read, and their sizes. left_out: name -> reason."""

    def __init__(self) -> None:
        self.records, self.sizes = Records(), Sizes()
        self.left_out: dict[str, str] = {}
        self._bare = 0

    @classmethod
    def of(cls, records: Iterable[Record]) -> Pictures:
        return cls.made_by(partial(_same, record) for record in records)

    @classmethod
    def made_by(cls, make: Iterable[Make]) -> Pictures:
        """Records are made and their headers read by several threads, in order."""
        found, each = cls(), iter(make)
        bar = tqdm(desc="reading headers", unit="picture", delay=PATIENCE, leave=False)
        with ThreadPoolExecutor(READING_THREADS) as pool, bar:
            while chunk := list(islice(each, CHUNK)):
                parts = (chunk[at : at + PART] for at in range(0, len(chunk), PART))
                for examined in pool.map(_examined, parts):
                    for record, size in examined:
                        found._add(record, size)
                bar.update(len(chunk))
        return found

    def _add(self, record: Record, size: Size | Exception) -> None:
        if isinstance(size, Exception):
            self.leave_out(record, size)
        else:
            self.records.append(record)
            self.sizes.append(size)
            self._bare += not record.caption

    def __len__(self) -> int:
        return len(self.records)

    @property
    def shares(self) -> Sequence[float]:
        """How often an epoch shows each; none where all are shown once."""
        return () if all(share == 1.0 for share in self.records.shares) else self.records.shares

    def leave_out(self, record: Record, error: Exception) -> None:
        if record.name not in self.left_out:
            self.left_out[record.name] = _reason(error)
            log.warning("Image Prompt: %s is left out (%s)", shown(record.name), self.left_out[record.name])

    def picture(self, number: int) -> Tensor:
        """(1, H, W, 3) in 0..1."""
        return _decoded(self.records[number].read)

    def reference(self, number: int) -> Tensor:
        """The picture that is the image prompt of this one, (1, H, W, 3); itself where it has no other.

        Raises SettingError with its name where it cannot be read.
        """
        record = self.records[number]
        if record.reference is None:
            return self.picture(number)
        try:
            return _decoded(record.reference)
        # decoders raise anything
        except Exception as error:
            raise SettingError(f"its reference {_name(record.reference)}: {_reason(error)}") from error

    @property
    def summary(self) -> str:
        """The number of pictures, of those without a caption, and the names of the broken ones."""
        parts = [f"{len(self)} pictures"]
        parts += [f"{self._bare} without a caption"] if self._bare else []
        if self.left_out:
            names = ", ".join(map(shown, list(self.left_out)[:5])) + (
                ", ..." if len(self.left_out) > 5 else ""
            )
            parts.append(f"{len(self.left_out)} broken and left out: {names}")
        return "; ".join(parts)


def _same(record: Record) -> Record:
    return record


def _examined(part: Sequence[Make]) -> list[tuple[Record, Size | Exception]]:
    return [_with_size(make()) for make in part]


def _with_size(record: Record) -> tuple[Record, Size | Exception]:
    try:
        for caption in (record.caption, *record.choices):
            _require_text(caption)
        if isinstance(record.reference, Place) and not record.reference.path.is_file():
            raise SettingError(f"its reference {_name(record.reference)} is not there")
        return record, _size(record.read)
    # decoders raise anything
    except Exception as error:
        return record, error


def _name(read: Read) -> str:
    return shown(read.path) if isinstance(read, Place) else "picture"


def _decoded(read: Read) -> Tensor:
    content = read()
    return content if isinstance(content, Tensor) else torch.from_numpy(read_values(content))[None]


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or of a kind that Pillow does not read"
    if isinstance(error, ImagePromptError):
        return str(error)
    return shown(f"{type(error).__name__}: {error}")


def _require_text(caption: str) -> None:
    """Raises SettingError for half characters (lone surrogates), which tokenizers refuse."""
    if any("\ud800" <= char <= "\udfff" for char in caption):
        raise SettingError(f"its caption is no text: {shown(caption, 60)}. Correct it.")


def _size(read: Read) -> Size:
    """(height, width), from the header where that suffices."""
    if isinstance(read, Place):
        with read.open() as file:
            return read_size(file)
    content = read()
    if isinstance(content, Tensor):
        return int(content.shape[1]), int(content.shape[2])
    return read_size(content)


def find_pictures(*sources: DataSet | str | Path) -> Pictures:
    """Of data sets: folders (pictures, captions as .txt beside them), .jsonl, .json or .csv lists, .tar shards (a pattern,
    or a folder of them). Raises MissingFileError if one has no picture."""
    sets = [each if isinstance(each, DataSet) else DataSet(str(each)) for each in sources]
    return Pictures.made_by(chain.from_iterable(_some(each) for each in sets))


def _some(data: DataSet) -> Iterator[Make]:
    found = makers(data)
    first = next(found, None)
    if first is None:
        raise MissingFileError(
            f"no picture in {data.path}. Give a folder with pictures ({', '.join(SUFFIXES)}), captions in .txt files of the "
            f"same name, or a list ({', '.join(READERS)}), or WebDataset shards (.tar)."
        )
    yield first
    yield from found


def from_tensors(
    images: Sequence[Tensor], captions: Sequence[str], references: Sequence[Tensor] = ()
) -> Pictures:
    """Pictures (n, H, W, 3) of a node, in one or several batches; one caption for each, for all, or none. references: of
    other pictures that are their image prompts, in one order."""
    singles, others = ([i[None, ..., :3] for batch in given for i in batch] for given in (images, references))
    if len(others) not in (0, len(singles)):
        raise SettingError(
            f"{len(others)} references came for {len(singles)} pictures; give one for each in the same order, or none."
        )
    if len(captions) not in (0, 1, len(singles)):
        raise SettingError(
            f"{len(captions)} captions came for {len(singles)} pictures; give one for each in the same order, one for all, "
            "or none."
        )
    texts = list(captions) * len(singles) if len(captions) == 1 else list(captions) or [""] * len(singles)
    names = [f"picture {number}" for number in range(1, len(singles) + 1)]
    reads = [partial(_kept, one) for one in singles]
    prompts = [partial(_kept, one) for one in others] or [None] * len(singles)
    rows = zip(names, texts, reads, prompts, strict=True)
    return Pictures.of(Record(name, text, name, read, (), prompt) for name, text, read, prompt in rows)


def _kept(picture: Tensor) -> Tensor:
    return picture
