"""Released files by name, into the right folder: with progress, resumed where it stopped, checked by sha256.

A file appears under its own name when it is whole and right, not before. Plain HTTP and not huggingface_hub, which
throws a partial file away when the connection breaks (2.4.0), and does not serve the face models.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from ..ipadapter_core.errors import RemoteError, WriteError, shown
from ..ipadapter_core.faces.graphs import is_cut
from ..ipadapter_core.files.writing import explaining, make_folder, new_folder
from ..model_files.index import file_sha256
from ..model_files.inspection import FileKind, inspect_file
from ..model_files.released import HUB, Kind, KnownFile
from .transfer import Progress, fetch, length

_CHUNK = 2**20
# Times the size of the archive: weights shrink by a tenth.
_LARGEST_UNPACKED = 20


def download(known: KnownFile, models: Path, progress: Progress | None = None, mirror: str = HUB) -> Path:
    """The path of the file; nothing is fetched if it is there already. mirror: in place of https://huggingface.co.

    Raises RemoteError, WriteError or CheckpointError; what came until then is kept as '<name>.part' and resumed by the
    next call.
    """
    folder = models / known.folder
    target = folder / known.name
    if known.kind is Kind.FACE_PACK and unpacked(known, folder):
        return _pack_folder(known, folder)
    if not (target.is_file() and _is_published(known, target)):
        _fetch_to(target, known, progress, mirror)
    return _unpack(known, target) if known.kind is Kind.FACE_PACK else target


def _fetch_to(target: Path, known: KnownFile, progress: Progress | None, mirror: str) -> None:
    part = make_folder(target.parent) / f"{known.name}.part"
    _require_space(known, part)
    fetch(known.url.replace(HUB, mirror.rstrip("/"), 1), part, known, progress)
    _check(known, part)
    with explaining(target):
        # another file of this name
        if target.exists():
            os.replace(target, _free(target, "old"))
        os.replace(part, target)


def _require_space(known: KnownFile, part: Path) -> None:
    needed = int(known.megabytes * 1e6) - length(part)
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise WriteError(
            f"{known.name} needs {needed / 1e6:,.0f} MB in {part.parent}, where {free / 1e6:,.0f} MB are free. "
            "Free some space, or give another folder with --models."
        )


def _is_published(known: KnownFile, path: Path) -> bool:
    """By its hash. Where none was published, a file of this name is left alone."""
    return known.sha256 is None or known.has_hash(file_sha256(path))


def _check(known: KnownFile, part: Path) -> None:
    if known.sha256 is None:
        return _check_contents(known, part)
    found = file_sha256(part)
    if not known.has_hash(found):
        aside = _free(part.with_name(known.name), "wrong")
        with explaining(aside):
            os.replace(part, aside)
        raise RemoteError(
            f"{known.name} is not the published file: its sha256 is {found}, expected {known.sha256}. It was put aside "
            f"as {aside.name}. Download it again, or compare it with {known.page}."
        )


def _check_contents(known: KnownFile, part: Path) -> None:
    """Without a published hash: the file must at least be whole."""
    found = inspect_file(part)
    if found.kind is FileKind.BROKEN:
        part.unlink()
        raise RemoteError(f"{known.name} came broken: {found.text}")


def _free(path: Path, ending: str) -> Path:
    """The first name of '<name>.<ending>', '<name>.<ending>2', ... that is not taken."""
    names = (path.with_name(f"{path.name}.{ending}{n or ''}") for n in (0, *range(2, 1000)))
    return next(name for name in names if not name.exists())


# --- face models -------------------------------------------------------------------------------------------------


def _pack_folder(known: KnownFile, folder: Path) -> Path:
    return folder / known.name.removesuffix(".zip")


def unpacked(known: KnownFile, folder: Path) -> bool:
    """Whether the pack is there and whole, not half written by a process that was stopped."""
    members = [_pack_folder(known, folder) / member for member in known.members]
    return all(member.is_file() and not is_cut(member) for member in members)


def _unpack(known: KnownFile, archive: Path) -> Path:
    """The .onnx files of the zip, whatever folder they lie in there, in a folder of the pack's name: all, or none."""
    folder = _pack_folder(known, archive.parent)
    most = _LARGEST_UNPACKED * archive.stat().st_size
    with new_folder(folder) as part:
        try:
            with zipfile.ZipFile(archive) as packed:
                _extract(packed, part, most)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise RemoteError(
                f"{archive.name} is no whole zip ({shown(error, 80)}). Download it again."
            ) from error
    archive.unlink()
    return folder


def _extract(packed: zipfile.ZipFile, folder: Path, most: int) -> None:
    """most: bytes in all, whatever the archive's index says. Raises ValueError where it has more."""
    members = [member for member in packed.infolist() if member.filename.endswith(".onnx")]
    names = [PureWindowsPath(member.filename).name for member in members]
    if len({name.lower() for name in names}) != len(names):
        raise ValueError("two files of one name")
    left = most
    for name, member in zip(names, members, strict=True):
        if ":" in name or not name.isprintable():
            raise ValueError("a file without a plain name")
        with packed.open(member) as source, (folder / name).open("wb") as target:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"more than {most:,} bytes in it")
                target.write(chunk)
