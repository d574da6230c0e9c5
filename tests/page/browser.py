"""Debian's Chromium, for Playwright."""

from __future__ import annotations

import shutil
from typing import Any

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)


def launch(playwright: Any) -> Any:
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    return playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
