"""A web server on this machine that behaves as Hugging Face's file addresses do, and misbehaves as connections do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """files: contents by path. cut_after: bytes after which a connection breaks off, per request. asked: what came.

    content_range: the header of a 206, '' for none, None for the right one. etag: of the version it has. redirect: the
    address it redirects to. endless: whether bytes follow after the file, without a Content-Length.
    """

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    ranges: bool = True
    content_range: str | None = None
    etag: str = '"an-etag"'
    redirect: str = ""
    endless: bool = False
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub, content, span = self.hub, self.hub.files.get(self.path), self.headers.get("Range", "")
        hub.asked.append((self.path, span))
        if hub.redirect:
            self.send_response(302)
            self.send_header("Location", hub.redirect)
            self.end_headers()
            return
        if content is None:
            self.send_error(404, "Entry not found")
            return
        same = self.headers.get("If-Range", hub.etag) == hub.etag
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and hub.ranges and same else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self._send_head(start, len(content))
        with suppress(ConnectionError):
            while hub.endless:
                self.wfile.write(bytes(2**20))
        end = start + hub.cut_after.pop(0) if hub.cut_after else len(content)
        self.wfile.write(content[start:end])

    def _send_head(self, start: int, size: int) -> None:
        hub = self.hub
        self.send_response(206 if start else 200)
        right = f"bytes {start}-{size - 1}/{size}"
        if start and hub.content_range != "":
            self.send_header("Content-Range", right if hub.content_range is None else hub.content_range)
        self.send_header("ETag", hub.etag)
        self.send_header("X-Repo-Commit", "0" * 40)
        if not hub.endless:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
