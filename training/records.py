"""What is known of pictures, packed: ten million records fit in memory, about 300 bytes each."""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from ..ipadapter_core.training.batches import Size

# between captions of one picture: a control character that no caption needs
_BETWEEN = "\x1e"


@dataclass(frozen=True)
class Place:
    """Where the bytes of a file are: `length` of them from `start` on, or all where it is -1."""

    path: Path
    start: int = 0
    length: int = -1

    def __call__(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    def open(self) -> BinaryIO:
        """For readers that need the header only."""
        file = self.path.open("rb")
        return file if self.length < 0 else io.BufferedReader(_Section(file, self.start, self.length))


class _Section(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self.file, self.begin, self.length, self.at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.begin + self.at)
        content = self.file.read(max(0, min(len(buffer), self.length - self.at)))
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()


Read = Callable[[], bytes | Tensor]


@dataclass(frozen=True)
class Record:
    """One picture. caption: the first of its captions. key: identifies its contents, for caches. read: returns its bytes, or
    the decoded picture. choices: all its captions, where it has several. reference: of the picture that is its image prompt,
    itself where None; its key is a part of `key`. share: how often an epoch shows it."""

    name: str
    caption: str
    key: str
    read: Read
    choices: tuple[str, ...] = ()
    reference: Read | None = None
    share: float = 1.0

    def caption_at(self, part: float | None) -> str:
        """One of all captions, by a number from 0 up to 1; the first without."""
        if part is None or not self.choices:
            return self.caption
        return self.choices[int(part * len(self.choices))]


class Strings(Sequence[str]):
    """Texts, packed."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("Q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: Any) -> Any:
        part = self._bytes[self._ends[number] : self._ends[number + 1]]
        return part.decode("utf-8", "surrogatepass")


class _Places:
    """Where files are, packed: a folder is held once. Other ways to read are held as they are."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._names, self._folder = Strings(), array("q")
        self._start, self._length = array("q"), array("q")
        self._others: dict[int, Read] = {}

    def append(self, read: Read | None) -> None:
        place = read if isinstance(read, Place) else None
        if read is not None and place is None:
            self._others[len(self._folder)] = read
        number = -1
        if place is not None:
            number = self._numbers.setdefault(place.path.parent, len(self._folders))
            if number == len(self._folders):
                self._folders.append(place.path.parent)
        self._folder.append(number)
        self._names.append(place.path.name if place else "")
        self._start.append(place.start if place else 0)
        self._length.append(place.length if place else -1)

    def __getitem__(self, number: int) -> Read | None:
        if self._folder[number] < 0:
            return self._others.get(number)
        path = self._folders[self._folder[number]] / self._names[number]
        return Place(path, self._start[number], self._length[number])


class Records(Sequence[Record]):
    """Records, packed; each is made when it is asked for."""

    def __init__(self) -> None:
        self._names, self._captions, self._stamps = Strings(), Strings(), Strings()
        self._places, self._references = _Places(), _Places()
        self.shares = array("d")

    def append(self, record: Record) -> None:
        captions = (record.caption, *record.choices)
        self._names.append(record.name)
        self._captions.append(_BETWEEN.join(text.replace(_BETWEEN, " ") for text in captions))
        self._stamps.append(record.key.removeprefix(_path_of(record.read)))
        self._places.append(record.read)
        self._references.append(record.reference)
        self.shares.append(record.share)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        caption, *choices = self._captions[number].split(_BETWEEN)
        read = self._places[number]
        assert read is not None
        return Record(
            self._names[number],
            caption,
            _path_of(read) + self._stamps[number],
            read,
            tuple(choices),
            self._references[number],
            self.shares[number],
        )

    def name(self, number: int) -> str:
        return self._names[number]


def _path_of(read: Read) -> str:
    """What keys of files begin with; it is not held twice."""
    return str(read.path) if isinstance(read, Place) else ""


class Sizes(Sequence[Size]):
    """Heights and widths, packed."""

    def __init__(self) -> None:
        self._values = array("i")

    def append(self, size: Size) -> None:
        self._values.extend(size)

    def __len__(self) -> int:
        return len(self._values) // 2

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        return self._values[2 * number], self._values[2 * number + 1]
