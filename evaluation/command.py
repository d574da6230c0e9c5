"""The command. Checks what it can before torch and ComfyUI are loaded."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..__main__ import start_logging
from ..ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, shown
from .arguments import parse

log = logging.getLogger("image_prompt.evaluation")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or the number of pictures that could not be made (at most 100), or 1 after an error that stops all.

    Errors are logged as sentences about what the user can mend.
    """
    args = parse(arguments)
    start_logging(args.verbose)
    try:
        _require(args)
        # only now: it imports torch
        from PIL import Image

        from . import tasks

        # pictures of too many pixels get an error message of our own
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        task = {"generate": tasks.generate, "score": tasks.score, "table": tasks.table}[args.command]
        missing = task(args)
    except (ImagePromptError, ImportError) as error:
        log.error("%s", error)
        return 1
    if missing:
        log.error("%d pictures are missing. Run this again to make them.", missing)
    return min(missing, 100)


def _require(args: argparse.Namespace) -> None:
    """Raise MissingFileError or SettingError for what is wrong at first sight."""
    if args.first is not None and args.first < 1:
        raise SettingError(f"--first is {args.first}; it must be 1 or more.")
    workflows = [*getattr(args, "workflows", []), getattr(args, "workflow", None)]
    for path in filter(None, workflows):
        if not _is_there(path):
            raise MissingFileError(
                f"the workflow {shown(path)} cannot be read: it is no file. Check the path."
            )
    for path in _folders(args):
        if not _is_there(path):
            raise MissingFileError(f"no picture in {shown(path)}: nothing is at this path. Check it.")
    if args.captions is not None and not _is_there(args.captions):
        raise MissingFileError(f"the captions {shown(args.captions)} do not exist. Check the path.")


def _folders(args: argparse.Namespace) -> Iterator[Path]:
    yield args.references
    for each in [*getattr(args, "folders", []), *getattr(args, "folder", [])]:
        _, parted, value = each.partition("=")
        yield Path(value if parted else each)


def _is_there(path: Path) -> bool:
    """False for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
