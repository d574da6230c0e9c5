"""Pictures with captions: a folder, a list, WebDataset shards, or a node's tensors. Broken ones are left out and named."""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from ..ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.pictures.lists import (
    READERS,
    SUFFIXES,
    Row,
    captions_of,
    decoded,
    picture_files,
    picture_of,
    rows_of,
)
from ..ipadapter_core.pictures.reading import read_size, read_values
from ..ipadapter_core.training.batches import Size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One picture. key: identifies its contents, for caches. read: returns its bytes, or the decoded picture."""

    name: str
    caption: str
    key: str
    read: Callable[[], bytes | Tensor]


@dataclass
class Pictures:
    """Records whose size could be read, and their sizes. left_out: name -> reason."""

    records: list[Record]
    sizes: list[Size]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Pictures:
        found = cls([], [])
        for record in records:
            try:
                _require_text(record.caption)
                size = _size(record.read())
            # decoders raise anything
            except Exception as error:
                found.leave_out(record, error)
            else:
                found.records.append(record)
                found.sizes.append(size)
        return found

    def __len__(self) -> int:
        return len(self.records)

    def leave_out(self, record: Record, error: Exception) -> None:
        if record.name not in self.left_out:
            self.left_out[record.name] = _reason(error)
            log.warning("Image Prompt: %s is left out (%s)", shown(record.name), self.left_out[record.name])

    def picture(self, number: int) -> Tensor:
        """(1, H, W, 3) in 0..1."""
        content = self.records[number].read()
        return content if isinstance(content, Tensor) else torch.from_numpy(read_values(content))[None]

    @property
    def summary(self) -> str:
        """The number of pictures, of those without a caption, and the names of the broken ones."""
        bare = sum(not record.caption for record in self.records)
        parts = [f"{len(self)} pictures"]
        parts += [f"{bare} without a caption"] if bare else []
        if self.left_out:
            names = ", ".join(map(shown, list(self.left_out)[:5])) + (
                ", ..." if len(self.left_out) > 5 else ""
            )
            parts.append(f"{len(self.left_out)} broken and left out: {names}")
        return "; ".join(parts)


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


def find_pictures(source: str | Path) -> Pictures:
    """A folder (pictures, captions as .txt beside them), a .jsonl, .json or .csv list, or .tar shards (a pattern, or a
    folder of them). Raises MissingFileError if there is none."""
    path = Path(source)
    if path.suffix.lower() in READERS:
        records = _listed(path)
    elif path.suffix == ".tar" or any(path.glob("*.tar")):
        records = _sharded(
            sorted(path.glob("*.tar")) if path.is_dir() else sorted(path.parent.glob(path.name))
        )
    else:
        records = _in_folder(path)
    if not records:
        raise MissingFileError(
            f"no picture in {path}. Give a folder with pictures ({', '.join(SUFFIXES)}), captions in .txt files of the same "
            f"name, or a list ({', '.join(READERS)}), or WebDataset shards (.tar)."
        )
    return Pictures.of(records)


def from_tensors(images: Sequence[Tensor], captions: Sequence[str]) -> Pictures:
    """Pictures (n, H, W, 3) of a node, in one or several batches; one caption for each, for all, or none."""
    singles = [image[None, ..., :3] for batch in images for image in batch]
    if len(captions) not in (0, 1, len(singles)):
        raise SettingError(
            f"{len(captions)} captions came for {len(singles)} pictures; give one for each in the same order, one for all, "
            "or none."
        )
    texts = list(captions) * len(singles) if len(captions) == 1 else list(captions) or [""] * len(singles)
    names = [f"picture {number}" for number in range(1, len(singles) + 1)]
    rows = zip(names, texts, singles, strict=True)
    return Pictures.of(Record(name, text, name, lambda kept=one: kept) for name, text, one in rows)


def _in_folder(folder: Path) -> list[Record]:
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is no folder, and no list or shard either. Check the path.")
    files = picture_files(folder)
    return [_file(file, str(file.relative_to(folder)), _caption_beside(file)) for file in files]


def _caption_beside(file: Path) -> str:
    text = file.with_suffix(".txt")
    try:
        return _text_of(text.read_bytes(), text.name) if text.is_file() else ""
    except OSError as error:
        raise SettingError(
            f"the caption {shown(text)} cannot be read: {error.strerror}. Check the file and its rights."
        ) from error


def _text_of(content: bytes, name: str) -> str:
    try:
        return decoded(content).strip()
    except UnicodeError:
        log.warning("Image Prompt: %s is not UTF-8; characters that cannot be read become �", shown(name))
        return content.decode("utf-8-sig", "replace").strip()


def _file(file: Path, name: str, caption: str) -> Record:
    stat = file.stat() if _is_file(file) else None
    return Record(name, caption, f"{file}|{stat and (stat.st_size, stat.st_mtime_ns)}", file.read_bytes)


def _listed(path: Path) -> list[Record]:
    return [_row(path, number, row) for number, row in enumerate(rows_of(path), 1)]


def _row(path: Path, number: int, row: Row) -> Record:
    named = picture_of(path, number, row)
    return _file(_with_suffix(path.parent / named), named, next(iter(captions_of(row)), ""))


def _with_suffix(path: Path) -> Path:
    """The picture of that name: some lists give names without suffix."""
    alike = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return path if _is_file(path) else next((other for other in alike if _is_file(other)), path)


def _is_file(path: Path) -> bool:
    """False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _sharded(shards: Sequence[Path]) -> list[Record]:
    """Samples by their offsets in WebDataset shards. The library streams them; buckets and resuming need random access."""
    records: list[Record] = []
    for shard in shards:
        try:
            with tarfile.open(shard) as tar:
                members = [member for member in tar if member.isfile()]
        except (tarfile.TarError, OSError) as error:
            raise SettingError(
                f"the shard {shard} cannot be read: {error}. Get it again, or take it out."
            ) from error
        records += _samples(shard, members)
    return records


def _samples(shard: Path, members: Iterable[tarfile.TarInfo]) -> Iterable[Record]:
    """A sample is all files whose paths are equal up to the first dot of the file name."""
    samples: dict[str, dict[str, Callable[[], bytes]]] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        read = partial(_bytes, shard, member.offset_data, member.size)
        samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})[f".{suffix.lower()}"] = read
    for stem, parts in samples.items():
        picture = next((read for suffix, read in parts.items() if suffix in SUFFIXES), None)
        if picture is not None:
            key = f"{shard}|{shard.stat().st_size}|{stem}"
            yield _sample(f"{shard.name}:{stem}", key, picture, parts)


def _sample(
    name: str, key: str, picture: Callable[[], bytes], parts: Mapping[str, Callable[[], bytes]]
) -> Record:
    """A sample whose caption cannot be read is left out, as one whose picture cannot."""
    try:
        caption = _caption_of(
            {suffix: parts[suffix]() for suffix in (".txt", ".json") if suffix in parts}, name
        )
    except (ValueError, RecursionError) as error:
        return Record(name, "", key, partial(_fail, f"its caption cannot be read: {shown(error)}."))
    return Record(name, caption, key, picture)


def _fail(why: str) -> bytes:
    raise SettingError(why)


def _bytes(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _caption_of(texts: Mapping[str, bytes], name: str) -> str:
    if ".txt" in texts:
        return _text_of(texts[".txt"], name)
    row = json.loads(decoded(texts[".json"])) if ".json" in texts else {}
    if not isinstance(row, Mapping):
        raise SettingError(f"it holds {type(row).__name__}, and no object with a caption")
    return next(iter(captions_of(row)), "")


def _size(content: bytes | Tensor) -> Size:
    """(height, width), from the header where that suffices."""
    if isinstance(content, Tensor):
        return int(content.shape[1]), int(content.shape[2])
    return read_size(content)
