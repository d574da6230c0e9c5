"""A web server on this machine that behaves as Hugging Face's file addresses do, and misbehaves as connections do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """files: contents by path. cut_after: bytes after which a connection breaks off, per request. asked: what came."""

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    ranges: bool = True
    address: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = hub.files.get(self.path)
            span = self.headers.get("Range", "")
            hub.asked.append((self.path, span))
            if content is None:
                self.send_error(404, "Entry not found")
                return
            start = int(span.removeprefix("bytes=").rstrip("-")) if span and hub.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", '"an-etag"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
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
