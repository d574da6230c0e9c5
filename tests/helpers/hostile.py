"""A web server on this machine that behaves as ComfyUI's does, but for one answer, which is bad."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Answer = Callable[["Handler"], None]
ENDPOINTS = ("/system_stats", "/upload/image", "/prompt", "/history", "/view")


@dataclass
class Script:
    """bad: the answer of an endpoint. times: how often it is given before the good one; None for always."""

    bad: dict[str, Answer] = field(default_factory=dict)
    times: int | None = None
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._serve()

    def _serve(self) -> None:
        self.close_connection = True
        script, endpoint = self.script, next((name for name in ENDPOINTS if self.path.startswith(name)), "/")
        script.asked.append(self.path)
        bad = script.bad.get(endpoint)
        if bad and (script.times is None or script.times > 0):
            script.times = None if script.times is None else script.times - 1
            with suppress(OSError):
                bad(self)
        else:
            _GOOD[endpoint](self)

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.raw(content)

    def raw(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
        self.script.sent += len(content)


def png(size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    return file.getvalue()


def say(value: Any, status: int = 200) -> Answer:
    """JSON, or bytes as they are."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler: handler.send(content, status)


def history(entry: Any) -> Answer:
    """This entry under the number that was asked for."""
    return lambda handler: handler.send(json.dumps({handler.path.rsplit("/", 1)[1]: entry}).encode())


def saved(*images: Any) -> dict[str, Any]:
    return {
        "outputs": {"5": {"images": list(images)}},
        "status": {"status_str": "success", "completed": True, "messages": []},
    }


IMAGE = {"filename": "a_00001_.png", "subfolder": "", "type": "output"}
_GOOD: dict[str, Answer] = {
    "/system_stats": say({"system": {}, "devices": []}),
    "/upload/image": say({"name": "cat.png", "subfolder": "", "type": "input"}),
    "/prompt": say({"prompt_id": "0a1b-2c3d", "number": 1, "node_errors": {}}),
    "/history": history(saved(IMAGE)),
    "/view": lambda handler: handler.send(png(), Content_Type="image/png"),
    "/": say({}),
}


def silent(handler: Handler) -> None:
    time.sleep(30)


def closes(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def not_http(handler: Handler) -> None:
    handler.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def drips_headers(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        handler.raw(b"x")
        time.sleep(0.05)


def drips_body(handler: Handler) -> None:
    handler.send(b"", Content_Length="1000000")
    while True:
        handler.raw(b" ")
        time.sleep(0.05)


def endless_headers(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.raw(b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100)))


def endless_body(handler: Handler) -> None:
    handler.send(b"", Content_Length="")
    while True:
        handler.raw(b"[" * 65536)


def endless_chunks(handler: Handler) -> None:
    handler.send(b"", Content_Length="", Transfer_Encoding="chunked")
    while True:
        handler.raw(b"10000\r\n" + b"[" * 65536 + b"\r\n")


def three_gigabytes(handler: Handler) -> None:
    handler.send(b"", Content_Length=str(3 << 30))
    for _ in range(3 << 14):
        handler.raw(b" " * 65536)


def announces(length: str) -> Answer:
    return lambda handler: handler.send(b"{}", Content_Length=length)


def sends_on(target: str, status: int = 302) -> Answer:
    return lambda handler: handler.send(b"", status, Location=target)


def encoded(coding: str, content: bytes) -> Answer:
    return lambda handler: handler.send(content, Content_Encoding=coding)


def with_type(kind: str, content: bytes) -> Answer:
    return lambda handler: handler.send(content, Content_Type=kind)


def deflate_bomb() -> bytes:
    """1 GB of zeros in 1 MB: one megabyte, packed, 1,024 times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (1 << 30) % 65521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + megabyte * 1024 + packer.flush() + struct.pack(">I", checksum)


def huge_png(width: int, height: int) -> bytes:
    """A header that promises so many pixels, and a few rows of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _server(script: Script) -> ThreadingHTTPServer:
    made = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    made.daemon_threads = True
    made.block_on_close = False
    return made


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    server = _server(script)
    script.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
