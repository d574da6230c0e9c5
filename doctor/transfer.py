"""One file over plain HTTP: resumed where it stopped, never more of it than was published, never of two versions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..ipadapter_core.errors import RemoteError, shown
from ..ipadapter_core.files.writing import explaining
from ..model_files.released import KnownFile

ATTEMPTS = 5
_CHUNK = 2**20
# Seconds without a byte.
_TIMEOUT = 30
_RANGE_PAST_THE_END = 416
# Allowed beyond the published size: bytes, and a factor of a size that was published in MB only.
_MARGIN, _ROUNDING = 2**16, 1.1
# Gets the bytes so far, and the bytes in all or 0.
Progress = Callable[[int, int], None]


class _Restart(Exception):
    """What came so far cannot be continued."""


class _SameSchemes(HTTPRedirectHandler):
    """A redirect goes to https, or stays on the http of a mirror that was given."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme, urlsplit(req.full_url).scheme) != ("http", "http"):
            raise RemoteError(
                f"{req.full_url} redirects to {shown(newurl)}, which is no safe address. Nothing was downloaded."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = build_opener(_SameSchemes)


def fetch(url: str, part: Path, known: KnownFile, progress: Progress | None) -> None:
    """Append to `part` until the whole file is there; after a break it is resumed where it stopped.

    Raises RemoteError, and WriteError where the disk is full.
    """
    stalled = restarts = 0
    while True:
        before = length(part)
        try:
            if _append(url, part, known, progress):
                _tag_of(part).unlink(missing_ok=True)
                return
            reason: object = "the connection broke off"
        except _Restart:
            _forget(part)
            before, reason = 0, "the server does not go on where it stopped"
            restarts += 1
        except HTTPError as error:
            raise RemoteError(
                f"{known.name} could not be downloaded: {url} answered {error.code} {shown(error.reason)}. "
                f"Look at {known.page}; the file may have moved or need an account."
            ) from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
        stalled = 0 if length(part) > before else stalled + 1
        if ATTEMPTS in (stalled, restarts) or not (length(part) or isinstance(reason, str)):
            kept = f"; {length(part):,} bytes are kept and will be resumed." if length(part) else "."
            raise RemoteError(
                f"{known.name} could not be downloaded from {url} ({shown(reason)}). Check the network and try again{kept}"
            )
        time.sleep(min(stalled, 3))


def length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _largest(known: KnownFile) -> int:
    return known.size + _MARGIN if known.size else int(known.published_mb * 1e6 * _ROUNDING) + _MARGIN


def _tag_of(part: Path) -> Path:
    """The file that keeps the ETag of the version that `part` is of."""
    return part.with_name(f"{part.name}.etag")


def _forget(part: Path) -> None:
    with explaining(part):
        part.unlink(missing_ok=True)
        _tag_of(part).unlink(missing_ok=True)


def _append(url: str, part: Path, known: KnownFile, progress: Progress | None) -> bool:
    """One request from where `part` ends. Whether the file is whole now."""
    start = length(part)
    if start and start == known.size:
        return True
    if start > _largest(known):
        raise _Restart
    try:
        response = _opener.open(Request(url, headers=_headers(part, known, start)), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == _RANGE_PAST_THE_END and start:
            return _whole_at(start, error.headers.get("Content-Range"), known)
        raise
    with response:
        return _receive(response, part, known, start, progress)


def _headers(part: Path, known: KnownFile, start: int) -> dict[str, str]:
    """Ask for the rest of this very version; without its ETag only where a hash is checked in the end."""
    headers = {"User-Agent": "image-prompt-doctor", "Accept-Encoding": "identity"}
    if not start:
        return headers
    try:
        tag = _tag_of(part).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        tag = ""
    if not tag and known.sha256 is None:
        raise _Restart
    return (
        headers
        | {"Range": f"bytes={start}-"}
        | ({"If-Range": tag} if re.fullmatch(r'"[^"\s]{1,200}"', tag) else {})
    )


def _whole_at(start: int, content_range: str | None, known: KnownFile) -> bool:
    """After the answer that there is no rest: whether the file has just this length, as far as that is known."""
    total = re.fullmatch(r"bytes \*/([0-9]{1,15})", content_range or "")
    if (total and int(total[1]) != start) or known.size not in (None, start):
        raise _Restart
    return True


def _receive(response: Any, part: Path, known: KnownFile, start: int, progress: Progress | None) -> bool:
    resumed = response.status == 206
    if resumed:
        _require_range(response.headers.get("Content-Range"), start, known)
    length_given = re.fullmatch(r"[0-9]{1,15}", response.headers.get("Content-Length") or "")
    total = (start if resumed else 0) + (int(length_given[0]) if length_given else 0)
    if total > _largest(known):
        raise _too_large(known, total)
    with explaining(part):
        _tag_of(part).write_text(response.headers.get("ETag") or "", encoding="ascii", errors="ignore")
        file = part.open("ab" if resumed else "wb", buffering=0)
    with file:
        return _copy(response, file, part, known, total, progress) >= (total or 1)


def _require_range(content_range: str | None, start: int, known: KnownFile) -> None:
    """The answer must continue what is there. Without a Content-Range it is trusted only where a hash is checked."""
    if content_range is None and start and known.sha256:
        return
    match = re.fullmatch(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)", content_range or "")
    if match is None or not start or int(match[1]) != start or int(match[2]) < start:
        raise _Restart
    if match[3] != "*" and (int(match[3]) <= int(match[2]) or known.size not in (None, int(match[3]))):
        raise _Restart


def _too_large(known: KnownFile, size: int) -> RemoteError:
    return RemoteError(
        f"{known.name} is not the published file: {size:,} bytes or more came, expected {known.megabytes:,.1f} MB. "
        f"Nothing of it was kept; compare the address with {known.page}."
    )


def _write(file: Any, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _copy(
    response: Any, file: Any, part: Path, known: KnownFile, total: int, progress: Progress | None
) -> int:
    """How many bytes are there now."""
    done = file.tell()
    while chunk := response.read(_CHUNK):
        done += len(chunk)
        if done > _largest(known):
            file.close()
            _forget(part)
            raise _too_large(known, done)
        with explaining(part):
            _write(file, chunk)
        if progress:
            progress(done, max(total, done))
    return done
