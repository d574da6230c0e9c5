"""A rule for the picture that is the image prompt of another, such as 'faces/{stem}.png' beside it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..ipadapter_core.errors import SettingError, shown
from ..ipadapter_core.pictures.lists import SUFFIXES

log = logging.getLogger(__name__)


def named_by(rule: str, file: Path) -> Path:
    """The image prompt of a file. Raises SettingError for what is no rule."""
    try:
        named = rule.format(stem=file.stem, name=file.name, folder=file.parent.name)
    except (KeyError, IndexError, ValueError) as error:
        raise SettingError(
            f"reference is '{shown(rule)}', which is no rule ({shown(error)}). Give one such as 'faces/{{stem}}.png', with "
            "{stem}, {name} or {folder} of the picture."
        ) from error
    return Path(os.path.normpath(file.parent / named))


def without_prompts(files: Callable[[], Iterable[Path]], rule: str) -> Iterator[Path]:
    """The files of a folder that are not image prompts of others in it, by the rule; in their order.

    files: lists them, twice; their names are not kept, for there may be millions.
    """
    folders: set[str] = set()
    for file in files() if rule else ():
        other = named_by(rule, file).parent
        folders |= set() if other == Path(os.path.normpath(file.parent)) else {str(other)}
    count = 0
    for file in files():
        if os.path.normpath(file.parent) in folders or (rule and _is_beside(file, rule)):
            count += 1
        else:
            yield file
    if count:
        log.info("Image Prompt: %d pictures are image prompts of others, by the rule %s", count, shown(rule))


def _is_beside(file: Path, rule: str) -> bool:
    """Whether it is the image prompt of a picture in the same folder."""
    pattern = re.escape(rule)
    for field in ("stem", "name", "folder"):
        pattern = pattern.replace(re.escape(f"{{{field}}}"), f"(?P<{field}>.+)", 1)
    match = re.fullmatch(pattern, file.name)
    found = match.groupdict() if match else {}
    names = (
        [found["name"]] if "name" in found else [f"{found['stem']}{s}" for s in SUFFIXES if "stem" in found]
    )
    others = (file.with_name(name) for name in names)
    return any(other != file and other.is_file() for other in others)
