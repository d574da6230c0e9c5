"""Where records come from: a folder, a list, WebDataset shards. Each yields functions that read one record's captions and
stamps, so that many threads can do it."""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..ipadapter_core.errors import SettingError, shown
from ..ipadapter_core.pictures.lists import (
    READERS,
    REFERENCE,
    SUFFIXES,
    Row,
    captions_of,
    decoded,
    iter_pictures,
    iter_rows,
    picture_of,
    with_separators,
)
from .data_sets import DataSet, require_there
from .records import Place, Record
from .reference_rules import named_by, without_prompts

log = logging.getLogger(__name__)
Make = Callable[[], Record]
# the first, and all where there are several
Captions = tuple[str, tuple[str, ...]]
# of a shard's sample: the name of the picture that is its image prompt ends so
REFERENCE_PART = ".reference"


def makers(data: DataSet) -> Iterator[Make]:
    """A function for each picture, which reads what is known of it."""
    require_there(data)
    path = Path(data.path)
    if path.suffix.lower() in READERS:
        yield from (partial(_row, path, number, row, data) for number, row in enumerate(iter_rows(path), 1))
    elif path.suffix == ".tar" or any(path.glob("*.tar")):
        yield from _sharded(path, data)
    else:
        files = without_prompts(partial(iter_pictures, path), data.reference)
        yield from (partial(_in_folder, path, file, data) for file in files)


def _in_folder(folder: Path, file: Path, data: DataSet) -> Record:
    return _file(file, str(file.relative_to(folder)), _captions_beside(file), data)


def _captions_beside(file: Path) -> Captions:
    text = file.with_suffix(".txt")
    try:
        return _captions_in(_text_of(text.read_bytes(), text.name)) if text.is_file() else ("", ())
    except OSError as error:
        raise SettingError(
            f"the caption {shown(text)} cannot be read: {error.strerror}. Check the file and its rights."
        ) from error


def _captions_in(text: str) -> Captions:
    """Of a text file: all of it is the caption, and its lines are choices where it has several."""
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    return text, lines if len(lines) > 1 else ()


def _captions_of(row: Row) -> Captions:
    found = tuple(captions_of(row)) or ("",)
    return found[0], found if len(found) > 1 else ()


def _text_of(content: bytes, name: str) -> str:
    try:
        return decoded(content).strip()
    except UnicodeError:
        log.warning("Image Prompt: %s is not UTF-8; characters that cannot be read become �", shown(name))
        return content.decode("utf-8-sig", "replace").strip()


def _file(file: Path, name: str, captions: Captions, data: DataSet, reference: Path | None = None) -> Record:
    if data.reference:
        reference = named_by(data.reference, file)
    key = f"{file}|{_stamp(file)}"
    if reference is not None:
        key += f"|{reference}|{_stamp(reference)}"
    place = None if reference is None else Place(reference)
    return Record(name, captions[0], key, Place(file), captions[1], place, data.share)


def _stamp(file: Path) -> tuple[int, int] | None:
    """Size and time of the last change."""
    stat = file.stat() if _is_file(file) else None
    return stat and (stat.st_size, stat.st_mtime_ns)


def _row(path: Path, number: int, row: Row, data: DataSet) -> Record:
    named = picture_of(path, number, row)
    other = next((str(row[key]) for key in REFERENCE if row.get(key)), "")
    reference = _with_suffix(path.parent / with_separators(path.parent, other)) if other else None
    return _file(_with_suffix(path.parent / named), named, _captions_of(row), data, reference)


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


# --- shards ------------------------------------------------------------------------------------------------------

Parts = dict[str, Place]


def _sharded(path: Path, data: DataSet) -> Iterator[Make]:
    """Samples by their offsets in WebDataset shards. The library streams them; buckets and resuming need random access."""
    shards = sorted(path.glob("*.tar")) if path.is_dir() else sorted(path.parent.glob(path.name))
    with ThreadPoolExecutor() as pool:
        for shard, samples in zip(shards, pool.map(_samples, shards), strict=True):
            size = shard.stat().st_size
            for stem, parts in samples.items():
                if _pictures(parts):
                    yield partial(_sample, shard, size, stem, parts, data)


def _samples(shard: Path) -> dict[str, Parts]:
    """A sample is all files whose paths are equal up to the first dot of the file name."""
    samples: dict[str, Parts] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    place = Place(shard, member.offset_data, member.size)
                    samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})[f".{suffix.lower()}"] = place
    except (tarfile.TarError, OSError) as error:
        raise SettingError(
            f"the shard {shard} cannot be read: {error}. Get it again, or take it out."
        ) from error
    return samples


def _pictures(parts: Parts) -> list[Place]:
    return [place for suffix, place in parts.items() if suffix in SUFFIXES]


def _sample(shard: Path, size: int, stem: str, parts: Parts, data: DataSet) -> Record:
    """A sample whose caption cannot be read is left out, as one whose picture cannot."""
    name, key = f"{shard.name}:{stem}", f"{shard}|{size}|{stem}"
    reference = next((parts[REFERENCE_PART + s] for s in SUFFIXES if REFERENCE_PART + s in parts), None)
    try:
        texts = {suffix: parts[suffix]() for suffix in (".txt", ".json") if suffix in parts}
        caption, choices = _captions_of_sample(texts, name)
    except (ValueError, RecursionError) as error:
        return Record(name, "", key, partial(_fail, f"its caption cannot be read: {shown(error)}."))
    if data.reference:
        raise SettingError(
            f"reference is a rule for files, but {shard.name} is a shard. Put the image prompt beside the picture, as "
            f"{stem}{REFERENCE_PART}.png."
        )
    return Record(name, caption, key, _pictures(parts)[0], choices, reference, data.share)


def _fail(why: str) -> bytes:
    raise SettingError(why)


def _captions_of_sample(texts: Mapping[str, bytes], name: str) -> Captions:
    if ".txt" in texts:
        return _captions_in(_text_of(texts[".txt"], name))
    row = json.loads(decoded(texts[".json"])) if ".json" in texts else {}
    if not isinstance(row, Mapping):
        raise SettingError(f"it holds {type(row).__name__}, and no object with a caption")
    return _captions_of(row)
