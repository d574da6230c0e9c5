"""What stands in every output: the model, the captions, the seeds, the counts, and the version that measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..ipadapter_core.files.writing import write_text
from .arguments import HERE

# beside the pictures that a workflow made: with what
MADE = "made.json"


def version() -> str:
    """Of this pack, from its pyproject.toml."""
    try:
        text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


@dataclass(frozen=True)
class About:
    """clip, dino: which weights, dino '' where it is not measured. prefix: before every caption. captions: which counts."""

    clip: str
    prefix: str
    captions: str
    dino: str = ""
    version: str = ""

    @property
    def line(self) -> str:
        """As a sentence."""
        parts = [f"CLIP model {self.clip}", f"captions: {self.captions}", f"prefix: {self.prefix or 'none'}"]
        parts += [f"DINO model {self.dino}"] if self.dino else []
        return f"Measured with {', '.join(parts)}, by Image Prompt {self.version or version()}."

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "version": self.version or version()}


def write_made(folder: Path, about: Mapping[str, Any]) -> None:
    """What the pictures of a folder were made with. Raises WriteError."""
    write_text(folder / MADE, json.dumps({**about, "version": version()}, indent=1))


def seeds_of(folder: Path) -> str:
    """What is known of the seeds of the pictures in a folder, '' for nothing."""
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        return f"{made['count']} from {made['seed']} on, {made['seeds']} for every reference"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
