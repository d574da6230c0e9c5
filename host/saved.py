"""What nodes save and load again: image prompts, and embeds of older packs."""

from __future__ import annotations

import time
from pathlib import Path

import folder_paths

from ..ipadapter_core.errors import MissingFileError, shown
from ..ipadapter_core.files.paths import next_free
from ..model_files.index import Index, files_below
from ..model_files.inspection import FileKind, inspect_for_prompt
from ..model_files.model_folders import PROMPT_STORE
from ..model_files.nearest import list_nearest, same_path
from .folders import PROMPTS, below_output, file_stamp, store_file

EMBEDS_SUFFIX = ".ipadpt"
# As in SaveImage.
_DATE_CODES = {
    "%year%": "%Y",
    "%month%": "%m",
    "%day%": "%d",
    "%hour%": "%H",
    "%minute%": "%M",
    "%second%": "%S",
}
# Of the input, output and models folders. The input folder has none, as in the de-facto pack's menu.
_EMBEDS_LABELS = ("", "output/", "models/")


def saved_prompts() -> dict[str, Path]:
    """Saved prompts by menu name ('output/image_prompts/prompt_00001.safetensors').

    Headers are read once and remembered by size and time, in an index of their own.
    """
    roots = [("input", folder_paths.get_input_directory()), ("output", folder_paths.get_output_directory())]
    roots += [("models", folder) for folder in folder_paths.get_folder_paths(PROMPTS)]
    index = Index(store_file(PROMPT_STORE, PROMPTS), inspect_for_prompt)
    folders = {f"{number}": [Path(root)] for number, (_, root) in enumerate(roots)}
    prompts = (
        entry for entry in index.scan(folders, (".safetensors",)) if entry.info.kind is FileKind.PROMPT
    )
    return {f"{roots[int(entry.folder)][0]}/{entry.name}": entry.path for entry in prompts}


def prompt_path(name: str) -> Path:
    """Of a saved prompt by its menu name. Raises MissingFileError."""
    prompts = saved_prompts()
    known = same_path(str(name), list(prompts))
    if known is None:
        raise MissingFileError(
            f"saved prompt '{shown(name)}' is not there any more. Found: {list_nearest(str(name), list(prompts))}. "
            "Save it again with Image Prompt: Save, or put the file in the input folder."
        )
    return prompts[known]


def prompt_stamp(name: str | None) -> str:
    """Changes when the file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    prompts = saved_prompts()
    known = same_path(str(name), list(prompts))
    return file_stamp(*(prompts.values() if name is None else [prompts[known]] if known else []))


def new_prompt_path(prefix: str) -> Path:
    """The next free '<prefix>_00001.safetensors' in the output folder; its folder is made."""
    return next_free(below_output(prefix), ".safetensors")


def new_embeds_path(prefix: str) -> Path:
    """The next free '<prefix>_00001.ipadpt' in the output folder; '%year%' and the like stand for the current date."""
    for word, code in _DATE_CODES.items():
        prefix = prefix.replace(word, time.strftime(code))
    return next_free(below_output(prefix), EMBEDS_SUFFIX)


def embeds_files() -> dict[str, Path]:
    """Saved embeds by menu name: below the input folder as the de-facto pack names them ('face/a.ipadpt'), then those
    in the output folder ('output/a.ipadpt') and in models/image_prompts ('models/a.ipadpt')."""
    here, output, models = _EMBEDS_LABELS
    roots = [(here, folder_paths.get_input_directory()), (output, folder_paths.get_output_directory())]
    roots += [(models, folder) for folder in folder_paths.get_folder_paths(PROMPTS)]
    found: dict[str, Path] = {}
    for label, root in roots:
        for name, path, _ in sorted(files_below([Path(root)], (EMBEDS_SUFFIX,))):
            found.setdefault(f"{label}{name}", path)
    return found


def embeds_path(name: str) -> Path:
    """The file that a workflow means, with '\\' or '/', in any of the folders. Raises MissingFileError."""
    if path := _embeds(name):
        return path
    raise MissingFileError(
        f"saved embeds '{shown(name)}' are not in the input or output folder nor in models/{PROMPTS}. Found: "
        f"{list_nearest(str(name), list(embeds_files()))}. Save them again with IPAdapter Save Embeds, or put the file in "
        "the input folder."
    )


def embeds_stamp(name: str) -> str:
    """Changes when the file does, so that the host runs the node again."""
    return file_stamp(_embeds(name))


def embeds_name(name: str) -> str | None:
    """The menu's name of the embeds that a workflow means; None if there are none."""
    found = list(embeds_files())
    same = (same_path(label + name, found) for label in _EMBEDS_LABELS)
    return next((known for known in same if known), None)


def _embeds(name: str) -> Path | None:
    known = embeds_name(name)
    return embeds_files()[known] if known else None
