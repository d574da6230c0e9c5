"""Data sets as they are named in settings: paths, shares, a rule for references. Nothing is opened, and torch not needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..ipadapter_core.errors import MissingFileError, SettingError, shown
from ..ipadapter_core.pictures.lists import READERS, SUFFIXES

_SHARE = re.compile(r"(.+)\*([0-9]*\.?[0-9]+)")


@dataclass(frozen=True)
class DataSet:
    """path: a folder, list, shard or pattern. share: how often an epoch shows each of its pictures. reference: a rule for
    the picture that is the image prompt, such as 'faces/{stem}.png' beside the picture; the picture itself without."""

    path: str
    share: float = 1.0
    reference: str = ""


def data_sets(text: str, reference: str = "") -> list[DataSet]:
    """Of 'my-pictures', or several with shares: 'portraits*3, streets*0.5'. A path that exists as it is needs no parting."""
    parts = [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]
    found = [_data_set(part, reference) for part in parts]
    for each in found:
        _require_share(each)
    return found


def _data_set(text: str, reference: str) -> DataSet:
    match = None if Path(text).exists() else _SHARE.fullmatch(text)
    return DataSet(match[1], float(match[2]), reference) if match else DataSet(text, 1.0, reference)


def _require_share(data: DataSet) -> None:
    if not 0 < data.share <= 10_000:
        raise SettingError(
            f"{shown(data.path)} is to be shown {data.share:g} times an epoch; give a number above 0 and up to 10000."
        )


def require_there(data: DataSet) -> None:
    """Raise MissingFileError where there is nothing at the path; nothing is opened."""
    path = Path(data.path)
    there = path.is_dir() or path.is_file() or (path.suffix == ".tar" and any(path.parent.glob(path.name)))
    if not there:
        raise MissingFileError(
            f"{path} is no folder, and no list or shard either. Give a folder with pictures ({', '.join(SUFFIXES)}), "
            f"captions in .txt files of the same name, or a list ({', '.join(READERS)}), or WebDataset shards (.tar)."
        )
