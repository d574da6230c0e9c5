"""Face models in the host's folders."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..ipadapter_core.errors import MissingFileError, shown
from ..ipadapter_core.faces.analysis import WHERE_TO_GET
from ..ipadapter_core.faces.graphs import is_cut
from ..model_files.index import files_below
from ..model_files.model_folders import folders_in
from ..model_files.nearest import list_nearest
from .folders import file_stamp

INSIGHTFACE = "insightface"


def by_name() -> dict[str, Path]:
    """Folders of face models by name ('buffalo_l'), for the menu: directories are listed, no file is opened.

    They are in models/insightface/models, as insightface unpacks them, or one level up, or models/antelopev2; a zip
    unpacked into a folder of its own name (antelopev2/antelopev2) counts too. Of equal names the first is taken.
    """
    folders = [folder for parent in _face_parents() for folder in folders_in(parent)]
    folders.append(Path(folder_paths.models_dir) / "antelopev2")
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.name != "models" and (any(folder.glob("*.onnx")) or any(folder.glob("*/*.onnx"))):
            found.setdefault(folder.name, folder)
    return found


def installed() -> list[str]:
    """Names of those whose files are complete, as far as their outlines show."""
    found = by_name()
    files_of = {
        name: [path for _, path, _ in files_below([folder], (".onnx",))] for name, folder in found.items()
    }
    return [name for name, paths in files_of.items() if not any(map(is_cut, paths))]


def _face_parents() -> list[Path]:
    """models/insightface, those that other packs or extra_model_paths.yaml added, and the 'models' in each."""
    added = folder_paths.folder_names_and_paths.get(INSIGHTFACE, ([], set()))[0]
    roots = dict.fromkeys(Path(root) for root in (os.path.join(folder_paths.models_dir, INSIGHTFACE), *added))
    return [parent for root in roots for parent in (root / "models", root)]


def path_of(name: str) -> Path:
    """Of a face model by its name. Raises MissingFileError."""
    models = by_name()
    if str(name) not in models:
        raise MissingFileError(
            f"face model '{shown(name)}' is not in {_face_parents()[0]}. Found: {list_nearest(str(name), list(models))}. "
            f"{WHERE_TO_GET}, and unpack it so that the .onnx files lie in {_face_parents()[0] / 'buffalo_l'} "
            "(or antelopev2)."
        )
    return models[name]


def stamp(name: str | None) -> str:
    """Changes when one of its files does. name None, for a linked value: when a file of any face model does."""
    models = by_name()
    folders = models.values() if name is None else [models[name]] if name in models else []
    return file_stamp(*(path for _, path, _ in sorted(files_below(list(folders), (".onnx",)))))
