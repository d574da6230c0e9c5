"""Running ComfyUI servers: a picture up, a workflow queued, the pictures back."""

from __future__ import annotations

import io
import json
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from ..ipadapter_core.errors import RemoteError, SettingError, shown
from .client import LIMITS, Client, Limits, Refusal
from .messages import failure, refusal_words, saved_images
from .reading import file_bytes, plain_name
from .workflow import Graph

POLL_SECONDS = 0.5
# of a queued workflow
_NUMBER = re.compile(r"[\w-]{1,100}", re.ASCII)


class Server:
    """One ComfyUI server by its address, such as http://127.0.0.1:8188. patience: seconds for one picture in all.

    Raises SettingError for an invalid address, RemoteError where no ComfyUI server answers.
    """

    def __init__(self, address: str, patience: float = 3600.0, limits: Limits = LIMITS):
        self.http = Client(address)
        self.address, self.patience, self.limits = self.http.address, patience, limits
        self.client = uuid.uuid4().hex
        self._call("GET", "/system_stats")

    def pictures(self, graph: Graph) -> list[bytes]:
        """The files that this graph's output nodes save. Raises SettingError with the server's words if it fails."""
        end = time.monotonic() + self.patience
        queued = self._call("POST", "/prompt", json={"prompt": graph, "client_id": self.client})
        number = queued.get("prompt_id")
        if not isinstance(number, str) or not _NUMBER.fullmatch(number):
            raise self._unexpected("/prompt", f"prompt_id {number!r}")
        # the server would run the other outputs only
        if words := refusal_words(None, queued.get("node_errors")):
            raise SettingError(f"{self.address} refuses a part of the workflow: {words}")
        return self._files(self._wait(number, end), end)

    def upload(self, picture: Path, name: str) -> str:
        """The name under which LoadImage finds it."""
        content, safe = file_bytes(picture), plain_name(name)

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData({"overwrite": "true"})
            data.add_field("image", io.BytesIO(content), filename=safe)
            return data

        path = "/upload/image"
        answer = self._call("POST", path, self.limits.transfer_seconds, data=form)
        folder, stored = answer.get("subfolder", ""), answer.get("name")
        if not isinstance(stored, str) or not stored or not isinstance(folder, str):
            raise self._unexpected(path, f"name {stored!r} in {folder!r}")
        return f"{folder}/{stored}".lstrip("/")

    def _wait(self, number: str, end: float) -> Any:
        """The outputs of the workflow with this number, of any shape."""
        path = f"/history/{number}"
        while (left := end - time.monotonic()) > 0:
            entry = self._call("GET", path, min(self.limits.call_seconds, max(left, 1.0))).get(number) or {}
            status = (entry.get("status") or {}) if isinstance(entry, Mapping) else None
            if not isinstance(status, Mapping):
                raise self._unexpected(path, repr(entry))
            if status.get("status_str") == "error":
                raise SettingError(f"{self.address}: {failure(status.get('messages'))}")
            if entry and status.get("completed", True):
                return entry.get("outputs")
            time.sleep(POLL_SECONDS)
        raise RemoteError(
            f"{self.address} did not finish a picture within {self.patience:.0f} s. Look at the server's log, or give it "
            "more time with --patience SECONDS."
        )

    def _files(self, outputs: Any, end: float) -> list[bytes]:
        """All within the time of one picture, and the bytes of one."""
        images = saved_images(outputs)
        if images is None:
            raise self._unexpected("/history", f"outputs {outputs!r}")
        files, left = [], self.limits.picture_bytes
        for image in images:
            seconds = max(min(self.limits.transfer_seconds, end - time.monotonic()), 1.0)
            path = f"/view?{urlencode(image)}"
            files.append(self._bytes("GET", path, left, seconds))
            left -= len(files[-1])
        return files

    def _call(self, method: str, path: str, seconds: float | None = None, **content: Any) -> dict[str, Any]:
        try:
            answer = self.http.json(
                method, path, self.limits.json_bytes, seconds or self.limits.call_seconds, **content
            )
        except Refusal as refusal:
            raise self._refused(path, refusal) from None
        if not isinstance(answer, dict):
            raise self._unexpected(path, repr(answer))
        return answer

    def _bytes(self, method: str, path: str, most: int, seconds: float) -> bytes:
        try:
            return self.http.bytes(method, path, most, seconds)
        except Refusal as refusal:
            raise self._refused(path, refusal) from None

    def _refused(self, path: str, refusal: Refusal) -> RemoteError | SettingError:
        """With ComfyUI's words about a graph, where there are any."""
        if words := _words(refusal.content):
            return SettingError(f"{self.address}: {words}")
        return RemoteError(
            f"{self.address}{shown(path)} answered with status {refusal.status}. Look at its log, and check that it "
            "is a ComfyUI server."
        )

    def _unexpected(self, path: str, found: str) -> RemoteError:
        return RemoteError(
            f"{self.address}{path} answered as no ComfyUI does: {shown(found, 100)}. Check that a ComfyUI server runs at "
            "this address, and that it is a current one."
        )


def _words(content: bytes) -> str:
    """ComfyUI reports what is wrong with a graph under 'error' and 'node_errors'."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    return (
        refusal_words(answer.get("error"), answer.get("node_errors")) if isinstance(answer, Mapping) else ""
    )
