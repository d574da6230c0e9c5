"""One server's answers over HTTP, bounded in bytes and time whatever it sends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp

from ..ipadapter_core.errors import RemoteError, SettingError, shown

PAUSE_SECONDS, TRIES = 0.5, 5


@dataclass(frozen=True)
class Limits:
    """Of one answer: bytes of JSON and of a picture; seconds in all for a call and for a picture up or down."""

    json_bytes: int = 16 << 20
    picture_bytes: int = 256 << 20
    call_seconds: float = 120.0
    transfer_seconds: float = 600.0


LIMITS = Limits()
# compressed answers could grow without bound, so they are neither requested nor accepted
_HEADERS = {"Accept-Encoding": "identity"}


class Client:
    """address: as a user gives it, '127.0.0.1:8188' or 'https://host/path'. Raises SettingError for an invalid one."""

    def __init__(self, address: str):
        parts = _parts(address)
        self._root = parts.geturl().rstrip("/")
        # without a name and password, which must not stand in logs
        self.address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")

    def json(self, method: str, path: str, most: int, seconds: float, **content: Any) -> Any:
        """What the server answers. Raises Refusal for an error status, RemoteError for what is no JSON."""
        data = self.bytes(method, path, most, seconds, **content)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RemoteError(
                f"{self.address}{path} answered with something that is no JSON: {_excerpt(data)}. Check that a ComfyUI "
                "server runs at this address."
            ) from error

    def bytes(self, method: str, path: str, most: int, seconds: float, **content: Any) -> bytes:
        """The answer, at most `most` bytes within `seconds`. A broken connection is tried again: a server may be busy.

        Raises RemoteError where none answers, or none that can be used, and Refusal for an error status.
        """
        end = time.monotonic() + seconds
        for attempt in range(TRIES):
            try:
                return asyncio.run(self._exchange(method, path, most, end - time.monotonic(), content))
            except RemoteError:
                raise
            except asyncio.TimeoutError as error:
                raise RemoteError(
                    f"{self.address}{path} did not answer within {seconds:.0f} s. Look at the server's log, start it "
                    "again, and run this again to go on."
                ) from error
            except aiohttp.ClientConnectionError as error:
                if attempt + 1 == TRIES:
                    raise self._unreachable(error) from error
                time.sleep(PAUSE_SECONDS * (attempt + 1))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise RemoteError(
                    f"{self.address}{path} gave an answer that is broken or not HTTP ({_reason(error)}). Check that a "
                    "ComfyUI server runs at this address."
                ) from error
        raise AssertionError("not reached")

    async def _exchange(
        self, method: str, path: str, most: int, seconds: float, content: Mapping[str, Any]
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=max(seconds, 0.001))
        # called for every attempt: a file that is sent is read from its beginning
        more = {key: value() if callable(value) else value for key, value in content.items()}
        async with (
            aiohttp.ClientSession(
                timeout=timeout,
                trust_env=True,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
            ) as session,
            session.request(method, self._root + path, allow_redirects=False, **more) as answer,
        ):
            self._require_plain(path, answer)
            data = await self._body(path, answer, most)
            if answer.status >= 400:
                raise Refusal(answer.status, data)
            return data

    def _require_plain(self, path: str, answer: aiohttp.ClientResponse) -> None:
        if 300 <= answer.status < 400:
            target = shown(answer.headers.get("Location", "nowhere"))
            raise RemoteError(
                f"{self.address}{path} redirects to {target}, which is not followed. Give the address of the ComfyUI server "
                "itself."
            )
        if (coding := answer.headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
            raise RemoteError(
                f"{self.address}{path} answered compressed ({shown(coding)}), which was not asked for. Use the server "
                "without a proxy that compresses."
            )

    async def _body(self, path: str, answer: aiohttp.ClientResponse, most: int) -> bytes:
        data = bytearray()
        announced = answer.content_length or 0
        if announced <= most:
            async for part in answer.content.iter_any():
                data += part
                if len(data) > most:
                    break
        if max(announced, len(data)) > most:
            raise RemoteError(
                f"{self.address}{path} answered with more than {most / 2**20:g} MB, and was stopped. Check that a ComfyUI "
                "server runs at this address, and that the workflow saves pictures of a usual size."
            )
        return bytes(data)

    def _unreachable(self, error: Exception) -> RemoteError:
        return RemoteError(
            f"no ComfyUI server answers at {self.address} ({_reason(error)}). Start one, or give --server ADDRESS."
        )


class Refusal(Exception):
    """An error status. content: what came with it."""

    def __init__(self, status: int, content: bytes):
        super().__init__(status)
        self.status, self.content = status, content


def _parts(address: str) -> SplitResult:
    text = address.strip()
    refused = SettingError(
        f"'{shown(address)}' is no address of a server. Give one such as 127.0.0.1:8188 or https://host:8188."
    )
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        reachable = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise refused from error
    plain = text.isprintable() and not set(text) & set(" \\")
    if not (reachable and plain) or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise refused
    return parts


def _excerpt(data: bytes) -> str:
    text = shown(" ".join(data[:80].decode("utf-8", "replace").split()))
    return f"'{text}'" if text else "nothing"


def _reason(error: Exception) -> str:
    # a message of its own does not repeat the address
    text = getattr(error, "message", "") or str(error)
    return shown(" ".join(text.split()) or type(error).__name__, 120)
