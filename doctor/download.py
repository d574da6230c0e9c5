"""Released files by name, into the right folder: with progress, resumed where it stopped, checked by sha256.

A file appears under its own name when it is whole and right, not before. Plain HTTP and not huggingface_hub, which
throws a partial file away when the connection breaks (2.4.0), and does not serve the face models.
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ..ipadapter_core.errors import ImagePromptError
from ..ipadapter_core.library.findings import Found, look
from ..ipadapter_core.library.index import file_sha256
from ..ipadapter_core.library.released import HUB, Kind, KnownFile

ATTEMPTS = 5
_CHUNK = 2**20
_TIMEOUT = 30  # seconds without a byte
_RANGE_PAST_THE_END = 416
Progress = Callable[[int, int], None]  # bytes so far, bytes in all or 0


class DownloadError(ImagePromptError):
    """The file could not be had, or is not what was published."""


def download(known: KnownFile, models: Path, progress: Progress | None = None, mirror: str = HUB) -> Path:
    """The file's place; nothing is fetched if it lies there already. mirror: in place of https://huggingface.co.

    Raises DownloadError; what came until then is kept as '<name>.part' and resumed by the next call.
    """
    folder = models / known.folder
    target = folder / known.name
    if known.kind is Kind.FACE_PACK and _unpacked(known, folder):
        return _pack_folder(known, folder)
    if target.is_file() and _right(known, target):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _fetch(known.url.replace(HUB, mirror.rstrip("/"), 1), part, known, progress)
    _check(known, part)
    if target.exists():  # of this name, but another file
        os.replace(target, _free(target, "old"))
    os.replace(part, target)
    return _unpack(known, target) if known.kind is Kind.FACE_PACK else target


def _right(known: KnownFile, path: Path) -> bool:
    """Where no hash was published, a file of this name is left alone."""
    return known.sha256 is None or file_sha256(path) == known.sha256


def _check(known: KnownFile, part: Path) -> None:
    if known.sha256 is None:
        return _check_contents(known, part)
    found = file_sha256(part)
    if found != known.sha256:
        aside = _free(part.with_name(known.name), "wrong")
        os.replace(part, aside)
        raise DownloadError(
            f"{known.name} is not the published file: its sha256 is {found}, expected {known.sha256}. It was put aside "
            f"as {aside.name}. Download it again, or compare it with {known.page}."
        )


def _check_contents(known: KnownFile, part: Path) -> None:
    """For want of a published hash: at least the file must be whole."""
    found = look(part)
    if found.kind is Found.BROKEN:
        part.unlink()
        raise DownloadError(f"{known.name} came broken: {found.text}")


def _free(path: Path, ending: str) -> Path:
    """The first name of '<name>.<ending>', '<name>.<ending>2', ... that is not taken."""
    names = (path.with_name(f"{path.name}.{ending}{n or ''}") for n in (0, *range(2, 1000)))
    return next(name for name in names if not name.exists())


# --- over the network --------------------------------------------------------------------------------------------


def _fetch(url: str, part: Path, known: KnownFile, progress: Progress | None) -> None:
    """Append to `part` until the whole file is there; a connection that breaks off is taken up where it stopped."""
    stalled = 0
    while True:
        before = _length(part)
        try:
            if _append(url, part, progress):
                return
            reason: object = "the connection broke off"
        except HTTPError as error:
            raise DownloadError(
                f"{known.name} could not be downloaded: {url} answered {error.code} {error.reason}. "
                f"Look at {known.page}; the file may have moved or need an account."
            ) from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
        stalled = 0 if _length(part) > before else stalled + 1
        if stalled >= ATTEMPTS or not _length(part):
            raise DownloadError(
                f"{known.name} could not be downloaded from {url} ({reason}). Check the network and try again"
                + (f"; {_length(part):,} bytes are kept and will be resumed." if _length(part) else ".")
            )
        time.sleep(min(stalled, 3))


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, part: Path, progress: Progress | None) -> bool:
    """One request from where `part` ends. Whether the file is whole now."""
    start = _length(part)
    headers = {"User-Agent": "image-prompt-doctor"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == _RANGE_PAST_THE_END and start:
            return True
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        start = file.tell()
        total = start + int(response.headers.get("Content-Length") or 0)
        return _copy(response, file, start, total, progress)


def _copy(response: Any, file: Any, start: int, total: int, progress: Progress | None) -> bool:
    done = start
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        if progress:
            progress(done, max(total, done))
    return done >= total


def bar(name: str) -> Progress:
    """A progress bar on the terminal, from the first bytes on."""
    from tqdm import tqdm

    shown: list[tqdm] = []

    def show(done: int, total: int) -> None:
        if not shown:
            shown.append(tqdm(desc=name, total=total, unit="B", unit_scale=True))
        shown[0].update(done - shown[0].n)
        if done >= total:
            shown[0].close()

    return show


# --- face models -------------------------------------------------------------------------------------------------


def _pack_folder(known: KnownFile, folder: Path) -> Path:
    return folder / known.name.removesuffix(".zip")


def _unpacked(known: KnownFile, folder: Path) -> bool:
    return all((_pack_folder(known, folder) / member).is_file() for member in known.members)


def _unpack(known: KnownFile, archive: Path) -> Path:
    """The .onnx files of the zip, whatever folder they lie in there, in a folder of the pack's name."""
    folder = _pack_folder(known, archive.parent)
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = Path(member.filename).name
            if name.endswith(".onnx"):
                (folder / name).write_bytes(packed.read(member))
    archive.unlink()
    return folder
