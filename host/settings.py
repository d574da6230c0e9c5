"""Settings of this pack: in the page's settings panel, or by environment variables, which win."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import folders

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """One that is on or off. id: in the page's settings (web/js/). variable: of the environment."""

    id: str
    variable: str
    default: bool

    def value(self) -> bool:
        """Read again whenever it was changed."""
        given = os.environ.get(self.variable, "").strip().lower()
        if given:
            return given not in ("0", "false", "no", "off")
        stored = _stored().get(self.id)
        return stored if isinstance(stored, bool) else self.default


def _stored() -> dict[str, Any]:
    path = folders.settings_file()
    if path is None:
        return {}
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, *_stamp: int) -> dict[str, Any]:
    """The page's settings; none where the file is damaged, which the host itself reports."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.info("Image Prompt: settings in %s could not be read (%s); defaults hold", path, error)
        return {}
    return data if isinstance(data, dict) else {}
