"""The pictures of the help pages: each node between its neighbours, in the real page of a host.

    COMFYUI_PATH=<checkout> python tests/help_pictures [NODE_ID ... | graph]

It needs the host's packages, Playwright and Debian's Chromium. What nodes show is made in the toy world (lab/toy), by the
pack's nodes and the host's sampler; the Doctor's table is of the tests' small models. Writes web/docs/images/<node id>.webp,
and docs/graph.png of the README.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOMS = [TESTS, TESTS.parent / "lab"]  # where the page's driver, and the bootstrap, are


def main(names: list[str]) -> None:
    sys.path[:1] = [str(room) for room in ROOMS]
    host = os.environ["COMFYUI_PATH"]
    bootstrap = importlib.import_module("bootstrap")
    bootstrap.start_host()
    bootstrap.pack_package()
    with tempfile.TemporaryDirectory() as base:
        importlib.import_module("help_pictures.made").furnish(Path(base))
        shutil.copy(Path(host) / "input" / "example.png", Path(base) / "input")
        with importlib.import_module("page.server").running(host, Path(base)) as address:
            importlib.import_module("help_pictures.shots").take(address, names)


if __name__ == "__main__":
    main(sys.argv[1:])
