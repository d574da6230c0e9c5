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

    told: the Content-Range of a 206, '' for none, None for the right one. etag: of the version it has. redirect: where it
    sends on to. endless: whether it goes on after the file without saying so.
    """

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    ranges: bool = True
    told: str | None = None
    etag: str = '"an-etag"'
    redirect: str = ""
    endless: bool = False
    address: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = hub.files.get(self.path)
            span = self.headers.get("Range", "")
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
            self.send_response(206 if start else 200)
            right = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start and hub.told != "":
                self.send_header("Content-Range", right if hub.told is None else hub.told)
            self.send_header("ETag", hub.etag)
            self.send_header("X-Repo-Commit", "0" * 40)
            if not hub.endless:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            with suppress(ConnectionError):
                while hub.endless:
                    self.wfile.write(bytes(2**20))
            end = start + hub.cut_after.pop(0) if hub.cut_after else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
