"""Where a file of a name from a graph may be written."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PureWindowsPath

from ..errors import SettingError, shown
from .writing import explaining, make_folder


def below(root: Path, name: str, refusal: str) -> Path:
    """The place of a name, with folders if it has them, below a folder, links followed.

    The text is checked before the disk is touched. Raises SettingError: `refusal` where the name leads out.
    """
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in name):
        raise SettingError(f"'{shown(name)}' has characters that no file name can have. Give a plain name.")
    windows = PureWindowsPath(name)
    path = posixpath.normpath(windows.as_posix())
    if (
        windows.drive
        or windows.root
        or path == "."
        or path.split("/")[0] == ".."
        or (os.name == "nt" and ":" in name)
    ):
        raise SettingError(refusal)
    # RuntimeError: of a link that leads to itself
    with explaining(root / path, RuntimeError):
        root, place = root.resolve(), (root / path).resolve()
    if not place.is_relative_to(root):
        raise SettingError(refusal)
    return place


def next_free(base: Path, suffix: str) -> Path:
    """'<base>_00001<suffix>', or the number after the highest there, written with or without a last '_'.

    The folder is made. Raises WriteError.
    """
    make_folder(base.parent)
    pattern = re.compile(re.escape(base.name) + r"_([0-9]{1,15})_?" + re.escape(suffix) + "$")
    with explaining(base):
        numbers = [int(match[1]) for path in base.parent.iterdir() if (match := pattern.match(path.name))]
    return base.parent / f"{base.name}_{max(numbers, default=0) + 1:05}{suffix}"
