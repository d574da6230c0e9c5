"""Where model files lie on a disk: the folders of today, and those that other packs used for adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ADAPTERS = "ipadapter"
FOLDERS = (ADAPTERS, "clip_vision", "loras")
# The index of model files and that of saved prompts, in the host's user directory.
STORE, PROMPT_STORE = "image_prompt/index.json", "image_prompt/prompts.json"
# In the models folder, on hosts without a user directory.
STORE_BESIDE_MODELS = ".image_prompt_index.json"
_OLD_NAMES = ("ip-adapter", "ip_adapter", "ipadapters", "ipadapter-flux", "xlabs/ipadapters")


def old_adapter_folders(models: Path, custom_nodes: Iterable[Path]) -> list[Path]:
    """Other folders with adapters, of those that exist: models/IPAdapter, custom_nodes/*IPAdapter*/models and the like."""
    found = [models / name for name in _OLD_NAMES]
    found += [path for path in folders_in(models) if path.name.lower() == ADAPTERS]
    for nodes in custom_nodes:
        found += [path / "models" for path in folders_in(nodes) if ADAPTERS in path.name.lower()]
    today = models / ADAPTERS
    return unique(path for path in found if path.is_dir() and not (today.is_dir() and path.samefile(today)))


def folders_in(parent: Path) -> list[Path]:
    """Sorted; empty where there is no such folder, or it cannot be read."""
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


def unique(paths: Iterable[Path]) -> list[Path]:
    """Each folder once, whatever its spelling and through whatever link."""
    return list({path.resolve(): path for path in reversed(list(paths))}.values())[::-1]


def face_models(models: Path, members: Sequence[str], whole: Callable[[Path], bool]) -> list[str]:
    """Names of insightface's model folders that hold these files, also where a zip was unpacked into its own name.

    whole: whether a file is complete.
    """
    parents = (models / "insightface" / "models", models / "insightface", models)
    return [
        folder.name
        for parent in parents
        for folder in folders_in(parent)
        if any(
            all((root / member).is_file() and whole(root / member) for member in members)
            for root in (folder, folder / folder.name)
        )
    ]
