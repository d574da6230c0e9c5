"""States to resume from: written beside and renamed, each with checksums, so that a damaged one is recognised.

Not accelerate's ProjectConfiguration: it writes a state in place, under the name that resuming takes, after it has deleted
the oldest one, and counts saves, not steps. A run killed while it writes would resume from half a state, or from none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..ipadapter_core.errors import CheckpointError
from ..ipadapter_core.files.writing import explaining, new_folder

STATE, ABOUT = "state", "about.json"
KEPT_STATES = 2
# bytes: with fewer, a failed write is taken for a full disk
NOTHING_FREE = 1 << 20
_NAME = re.compile(rf"{STATE}-(\d+)")
log = logging.getLogger(__name__)


class DamagedStateError(CheckpointError):
    """A state that cannot be resumed from; the message says what is damaged."""


def all_states(folder: Path) -> list[Path]:
    """Folders of states by their number of steps, the oldest first, whether whole or not."""
    found = {path: match for path in folder.glob(f"{STATE}-*") if (match := _NAME.fullmatch(path.name))}
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(found[path][1]))


def states(folder: Path) -> list[Path]:
    """Those that were completely written."""
    return [path for path in all_states(folder) if (path / ABOUT).is_file()]


def write_state(folder: Path, number: int, about: dict[str, Any], fill: Callable[[Path], None]) -> None:
    """The state after `number` steps; the last KEPT_STATES are kept. fill: writes its files. Raises WriteError."""
    path = folder / f"{STATE}-{number:06d}"
    # of a run that was killed while it wrote
    for left in folder.glob(f".{STATE}-*"):
        shutil.rmtree(left, ignore_errors=True)
    if path.exists():
        with explaining(path):
            path.rename(path.with_name(f".{path.name}.replaced"))
    # what safetensors and torch raise on a full disk
    with new_folder(path, SafetensorError, RuntimeError) as part:
        _fill(fill, part)
        files = {file.name: _fingerprint(file) for file in sorted(part.iterdir())}
        (part / ABOUT).write_text(json.dumps({**about, "files": files}), encoding="utf-8")
    shutil.rmtree(path.with_name(f".{path.name}.replaced"), ignore_errors=True)
    for old in states(folder)[:-KEPT_STATES]:
        shutil.rmtree(old, ignore_errors=True)


def _fill(fill: Callable[[Path], None], part: Path) -> None:
    try:
        fill(part)
    except RuntimeError as error:
        # torch does not say why it could not write
        if shutil.disk_usage(part).free < NOTHING_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def read_about(state: Path) -> dict[str, Any]:
    """The record of a whole state: its config (key "recipe"), steps, processes, scale. Raises DamagedStateError."""
    about = _about(state)
    match = _NAME.fullmatch(state.name)
    if match is None or about["steps"] != int(match[1]):
        raise DamagedStateError(f"{ABOUT} is of step {about['steps']}")
    for name, saved in about.get("files", {}).items():
        file = state / name
        if not file.is_file():
            raise DamagedStateError(f"{name} is missing")
        if _fingerprint(file) != saved:
            raise DamagedStateError(f"{name} is not as it was written")
    return about


def _about(state: Path) -> dict[str, Any]:
    try:
        about = json.loads((state / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedStateError(f"{ABOUT} is missing") from None
    except (OSError, ValueError) as error:
        raise DamagedStateError(f"{ABOUT} cannot be read: {error}") from error
    kinds = {"recipe": dict, "steps": int, "processes": int}
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kinds[name]) for name in kinds):
        raise DamagedStateError(f"{ABOUT} does not hold {', '.join(kinds)}")
    return about


def _fingerprint(file: Path) -> list[Any]:
    """Size and sha256."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return [file.stat().st_size, digest.hexdigest()]


def set_aside(path: Path, word: str) -> None:
    """Rename '<path>' to '<path>-<word>', or with a number, so that resuming does not find it. Raises WriteError."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    target, number = path.with_name(f"{stem}-{word}{suffix}"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{stem}-{word}-{number}{suffix}")
    with explaining(target):
        path.rename(target)
    log.info("Image Prompt: %s is now %s", path, target.name)
