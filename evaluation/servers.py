"""Running ComfyUI servers: a picture up, a workflow queued, the pictures back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from ..ipadapter_core.errors import MissingFileError, RecipeError
from .workflow import Graph

POLL_SECONDS, TRIES = 0.5, 5


class Server:
    """One ComfyUI server by its address, such as http://127.0.0.1:8188."""

    def __init__(self, address: str, patience: float = 3600.0):
        self.address = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
        self.patience = patience
        self.client = uuid.uuid4().hex
        self._call("GET", "/system_stats")

    def pictures(self, graph: Graph) -> list[bytes]:
        """The files that this graph's output nodes save. Raises RecipeError with the server's words if it fails."""
        queued = self._call("POST", "/prompt", json={"prompt": graph, "client_id": self.client})
        done = self._wait(queued["prompt_id"])
        saved = [image for output in done["outputs"].values() for image in output.get("images", [])]
        kept = [image for image in saved if image.get("type") == "output"] or saved
        return [self._file(image) for image in kept]

    def upload(self, picture: Path, name: str) -> str:
        """The name under which LoadImage finds it."""
        with picture.open("rb") as file:
            told = self._call(
                "POST", "/upload/image", files={"image": (name, file)}, data={"overwrite": "true"}
            )
        return f"{told['subfolder']}/{told['name']}".lstrip("/")

    def _wait(self, number: str) -> Mapping[str, Any]:
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            entry = self._call("GET", f"/history/{number}").get(number)
            if entry and entry.get("status", {}).get("status_str") == "error":
                raise RecipeError(f"{self.address}: {_failure(entry)}")
            if entry and entry.get("status", {}).get("completed", True):
                return entry
            time.sleep(POLL_SECONDS)
        raise RecipeError(f"{self.address} did not finish within {self.patience:.0f} s.")

    def _file(self, image: Mapping[str, str]) -> bytes:
        place = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
        return self._request("GET", "/view", params=place).content

    def _call(self, method: str, path: str, **more: Any) -> Any:
        return self._request(method, path, **more).json()

    def _request(self, method: str, path: str, **more: Any) -> requests.Response:
        """Again after a broken connection: a server may be busy loading."""
        for attempt in range(TRIES):
            try:
                answer = requests.request(method, self.address + path, timeout=120, **more)
            except requests.ConnectionError as error:
                if attempt + 1 == TRIES:
                    raise MissingFileError(
                        f"no ComfyUI server answers at {self.address}. Start one, or give --server ADDRESS."
                    ) from error
                time.sleep(POLL_SECONDS * (attempt + 1))
            else:
                if answer.status_code >= 400:
                    raise RecipeError(f"{self.address}: {_refusal(answer)}")
                return answer
        raise AssertionError("not reached")


def _refusal(answer: requests.Response) -> str:
    """ComfyUI names what is wrong with a graph under 'error' and 'node_errors'."""
    try:
        told = answer.json()
    except json.JSONDecodeError:
        return f"status {answer.status_code}"
    errors = [
        f"node {number} ({node.get('class_type')}): {error.get('message')} {error.get('details', '')}".strip()
        for number, node in (told.get("node_errors") or {}).items()
        for error in node.get("errors", [])
    ]
    message = told.get("error")
    return "; ".join(errors) or str(message.get("message") if isinstance(message, Mapping) else message)


def _failure(entry: Mapping[str, Any]) -> str:
    for kind, told in entry.get("status", {}).get("messages", []):
        if kind == "execution_error":
            return f"{told.get('node_type')}: {told.get('exception_message', '').strip()}"
    return "the workflow failed; see the server's log."
