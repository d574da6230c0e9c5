"""A host's own server on the CPU, with this pack linked into a base directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bootstrap import ROOT
from helpers import base_files

SDXL = "sd_xl_base_1.0.safetensors"  # with the keys of its blocks
WRONG = b"not the published file"
PATIENCE = 300  # seconds until a slow machine's server answers
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Release.Status": "skipped",
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
}
# Empty files for the menus: no test of the page runs a model.
FILES = {
    "checkpoints": ("v1-5-pruned-emaonly.safetensors",),
    "clip_vision": ("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",),
    "ipadapter": ("ip-adapter-plus_sd15.safetensors", "ip-adapter-plus_sdxl_vit-h.safetensors"),
}


@contextmanager
def running(host: str, base: Path, frontend: str | None, mirror: str) -> Iterator[str]:
    """Its address, while it runs. mirror: in place of https://huggingface.co."""
    _furnish(base)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        os.environ.get("PAGE_PYTHON", sys.executable),
        "main.py",
        "--cpu",
        "--base-directory",
        str(base),
    ]
    command += ["--listen", "127.0.0.1", "--port", str(port)]
    command += ["--front-end-root", str(Path(frontend).resolve())] if frontend else []
    with (base / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=host, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_ENDPOINT": mirror}
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}", base / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


class _Wrong(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WRONG)))
        self.end_headers()
        self.wfile.write(WRONG)


@contextmanager
def wrong_files() -> Iterator[str]:
    """Address of a server that has WRONG by every name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Wrong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def _furnish(base: Path) -> None:
    for folder in (
        "custom_nodes",
        "input",
        "output",
        "temp",
        "user/default",
        *(f"models/{f}" for f in FILES),
    ):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / "image-prompt").symlink_to(ROOT)
    (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    base_files.write_checkpoint(base / "models" / "checkpoints" / SDXL, base_files.SDXL)
    for folder, names in FILES.items():
        for name in names:
            (base / "models" / folder / name).touch()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/system_stats", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")
