"""The host's folders: where adapters and saved prompts lie, and what a missing one's error says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths

from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.prompt import is_saved_prompt

ADAPTERS = "ipadapter"
PROMPTS = "image_prompts"
EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def register_folders() -> None:
    """Make models/ipadapter and models/image_prompts model folders; extra_model_paths.yaml may have added more."""
    for name in (ADAPTERS, PROMPTS):
        path = os.path.join(folder_paths.models_dir, name)
        known = folder_paths.folder_names_and_paths.get(name, ([], set()))[0]
        if path not in known:
            folder_paths.add_model_folder_path(name, path)


def adapter_files() -> list[str]:
    """Names for the menu: a directory listing, no file is opened."""
    return [name for name in folder_paths.get_filename_list(ADAPTERS) if name.lower().endswith(EXTENSIONS)]


def adapter_path(name: str) -> str:
    path = folder_paths.get_full_path(ADAPTERS, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(ADAPTERS))
        found = ", ".join(adapter_files()[:8]) or "none"
        raise MismatchError(
            f"adapter file '{name}' is not in {folders}. Files found there: {found}. "
            "Pick one of them, or download the adapter (see the README's table) into the first folder."
        )
    return path


def saved_prompts() -> dict[str, Path]:
    """Saved prompts by menu name ('output/image_prompts/prompt_00001.safetensors'); headers are read, no more."""
    roots = [("input", folder_paths.get_input_directory()), ("output", folder_paths.get_output_directory())]
    roots += [("models", folder) for folder in folder_paths.get_folder_paths(PROMPTS)]
    found = {
        f"{label}/{path.relative_to(root).as_posix()}": path
        for label, root in roots
        for path in sorted(Path(root).rglob("*.safetensors"))
    }
    return {name: path for name, path in found.items() if is_saved_prompt(path)}


def prompt_path(name: str) -> Path:
    prompts = saved_prompts()
    if name not in prompts:
        raise MismatchError(
            f"saved prompt '{name}' is not there any more. Found: {', '.join(prompts) or 'none'}. "
            "Save it again with Image Prompt: Save, or put the file in the input folder."
        )
    return prompts[name]


def stamp(name: str) -> str:
    """Changes when the file does, so that the host runs the node again."""
    path = saved_prompts().get(name)
    return f"{path.stat().st_mtime_ns}-{path.stat().st_size}" if path else "missing"


def new_prompt_path(prefix: str) -> Path:
    """The next free '<prefix>_00001.safetensors' in the output folder; its folder is made."""
    root = Path(folder_paths.get_output_directory()).resolve()
    base = (root / prefix).resolve()
    if not base.is_relative_to(root) or base == root:
        raise MismatchError(
            f"filename_prefix '{prefix}' leads out of the output folder {root}. Use a name below it."
        )
    base.parent.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(base.name) + r"_(\d+)\.safetensors$")
    numbers = [int(match[1]) for path in base.parent.iterdir() if (match := pattern.match(path.name))]
    return base.parent / f"{base.name}_{max(numbers, default=0) + 1:05}.safetensors"
