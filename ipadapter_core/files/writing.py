"""Files and folders that appear under their names whole or not at all; where they cannot be written, one sentence."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import WriteError, shown

_PREFIX, _SUFFIX = ".image-prompt-", ".part"
# Seconds, after which what a killed process left is removed.
_STALE = 24 * 3600
_RIGHTS = ("it may not be written here", "Change the rights of the folder, or use another one")
_FULL = ("the disk is full", "Free some space and do it again")
_NAME = ("no file can have this name", "Use a plain name, without control characters")
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("the file is too large for this disk", "Use another folder"),
    errno.EROFS: ("the disk is read-only", "Use another folder"),
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENAMETOOLONG: ("the name is too long", "Give a shorter one"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "Give another name"),
    errno.EEXIST: ("a file of this name is in the way", "Give another name"),
    errno.EISDIR: ("a folder of this name is in the way", "Give another name"),
    errno.ENOENT: ("its folder is gone", "Do it again"),
    errno.EINVAL: _NAME,
}


@contextmanager
def replacing(path: str | Path, *also: type[Exception]) -> Generator[Path, None, None]:
    """A free path beside `path` to write a file to: it is renamed when the block ends, and removed where it fails.

    Folders are made. also: what the block's writer raises beside OSError where a disk fails it, as SafetensorError.
    Raises WriteError.
    """
    path = Path(path)
    with explaining(path, *also):
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_possible(path)
        _remove_stale(path.parent)
        part = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
        try:
            yield part
            _sync(part)
            os.replace(part, path)
            _sync(path.parent)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path, *also: type[Exception]) -> Generator[Path, None, None]:
    """The same for a folder of several files.

    Where `path` exists, its files are replaced one by one, others stay. What a killed process left of the same folder is
    removed first. Raises WriteError.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}{_SUFFIX}")
    with explaining(path, *also):
        shutil.rmtree(part, ignore_errors=True)
        _require_possible(part)
        part.mkdir(parents=True)
        try:
            yield part
            for file in part.rglob("*"):
                _sync(file)
            _move(part, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Raises WriteError."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """UTF-8; what is no text is escaped. Raises WriteError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def make_folder(path: str | Path) -> Path:
    """Raises WriteError."""
    with explaining(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextmanager
def explaining(path: str | Path, *also: type[Exception]) -> Generator[None, None, None]:
    """What fails in the block while `path` is written becomes a WriteError of one sentence, and what to do."""
    try:
        yield
    except (OSError, UnicodeError, *also) as error:
        raise WriteError(_sentence(path, error)) from error
    except ValueError as error:
        # Python's message of a NUL in a path
        if "null" not in str(error):
            raise
        raise WriteError(_sentence(path, error)) from error


def _sentence(path: str | Path, error: Exception) -> str:
    number = _number(error)
    reason, remedy = _REASONS.get(number or 0, ("", ""))
    if number is None and isinstance(error, ValueError):
        reason, remedy = _NAME
    reason = reason or shown(getattr(error, "strerror", None) or " ".join(str(error).split()))
    return f"{shown(path)} could not be written: {reason}. {remedy or 'Check the folder and its disk'}."


def _number(error: BaseException | None) -> int | None:
    """errno of the error, of what it came from, or as its text gives it (safetensors)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if match := re.search(r"\(os error (\d+)\)", str(error)):
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None


def _require_possible(path: Path) -> None:
    """Raises OSError or ValueError for a name that the disk cannot have, before anything is written."""
    with suppress(FileNotFoundError):
        os.lstat(path)
    if path.is_dir() and not path.is_symlink():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))


def _move(part: Path, path: Path) -> None:
    if not path.exists():
        os.rename(part, path)
        return
    for file in sorted(part.rglob("*")):
        target = path / file.relative_to(part)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(file, target)


def _remove_stale(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def _sync(path: Path) -> None:
    """To the disk, so that a power cut leaves the old file or the new one. Folders, where the system can."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        # of disks that have no sync
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
