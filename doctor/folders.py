"""ComfyUI's model folders, found without ComfyUI: from the pack's place, a path, and extra_model_paths.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import MissingFileError
from ..model_files.model_folders import (
    ADAPTERS,
    FOLDERS,
    STORE,
    STORE_BESIDE_MODELS,
    old_adapter_folders,
    unique,
)

EXTRA_PATHS = "extra_model_paths.yaml"


@dataclass(frozen=True)
class SearchedFolders:
    """models: where downloads go. folders: by kind. store: the index, None without a place for it. notes: what failed."""

    models: Path
    folders: Mapping[str, list[Path]]
    store: Path | None
    notes: list[str] = field(default_factory=list)


def find_folders(
    pack: Path, comfyui: Path | None = None, models: Path | None = None, extra: Path | None = None
) -> SearchedFolders:
    """Of the first that is given: `models`, `comfyui`, or ComfyUI around the pack. Raises MissingFileError."""
    root = comfyui or (models.parent if models else _around(pack))
    models = models or (root / "models" if root else None)
    if models is None or not os.path.isdir(models):
        raise MissingFileError(
            f"ComfyUI's models folder was not found: {models or pack.parent.parent / 'models'} is not a folder. "
            "Give its place with --comfyui PATH (the folder that holds models) or --models PATH."
        )
    notes: list[str] = []
    folders = {name: [models / name] for name in FOLDERS}
    extra = extra or (root / EXTRA_PATHS if root else None)
    for name, paths in _extra_folders(extra, notes).items():
        folders[name] += paths
    folders[ADAPTERS] += old_adapter_folders(models, [root / "custom_nodes"] if root else [])
    folders = {name: unique(path for path in paths if os.path.isdir(path)) for name, paths in folders.items()}
    return SearchedFolders(models, folders, _store(root, models), notes)


def _around(pack: Path) -> Path | None:
    """ComfyUI, where the pack lies in its custom_nodes; else None."""
    for place in (pack.absolute(), pack.resolve(), Path.cwd()):
        for parent in (place, *place.parents):
            if (parent / "custom_nodes").is_dir() and (parent / "models").is_dir():
                return parent
    return None


def _store(root: Path | None, models: Path) -> Path | None:
    if root and os.path.isdir(root / "user"):
        return root / "user" / STORE
    beside = models / ADAPTERS
    return beside / STORE_BESIDE_MODELS if beside.is_dir() else None


def _extra_folders(file: Path | None, notes: list[str]) -> dict[str, list[Path]]:
    """Folders by kind of an extra_model_paths.yaml: sections of base_path and one or more lines for each kind."""
    found: dict[str, list[Path]] = {name: [] for name in FOLDERS}
    if file is None or not os.path.isfile(file):
        return found
    for section in _sections(file, notes):
        base = Path(os.path.expandvars(os.path.expanduser(_text(section, "base_path"))))
        for name in FOLDERS:
            lines = _text(section, name).splitlines()
            found[name] += [file.parent / base / line.strip() for line in lines if line.strip()]
    return found


def _text(section: Mapping[str, Any], name: str) -> str:
    value = section.get(name)
    return value if isinstance(value, str) else ""


def _sections(file: Path, notes: list[str]) -> list[Mapping[str, Any]]:
    try:
        import yaml
    except ImportError:
        notes.append(f"{file} was not read, since PyYAML is not installed. Run: pip install pyyaml")
        return []
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(
            f"{file} could not be read ({' '.join(str(error).split())[:120]}). Mend it, or remove it."
        )
        return []
    sections = data.values() if isinstance(data, Mapping) else []
    return [section for section in sections if isinstance(section, Mapping)]
