"""The host's folders: where adapters and saved prompts lie, and the errors for files that are missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths

from ..ipadapter_core.errors import ImagePromptError, MissingFileError, WrongEncoderError, shown
from ..ipadapter_core.files.paths import below, next_free
from ..ipadapter_core.pictures.lists import picture_files
from ..ipadapter_core.spec import AdapterSpec, Variant
from ..model_files.catalog import encoder_file, file_named
from ..model_files.choice import candidates, find_encoder
from ..model_files.identification import look_alikes, variant_of
from ..model_files.index import EXTENSIONS, Index, regular
from ..model_files.model_folders import ADAPTERS, FOLDERS, STORE, STORE_BESIDE_MODELS, old_adapter_folders
from ..model_files.nearest import list_nearest, match_name, same_path
from ..model_files.released import Intent

PROMPTS = "image_prompts"
SCORES = "image_prompt_scores"
TRAINING = "image_prompt_training"
# What to get where there is no adapter at all.
_USUAL = "ip-adapter-plus_sd15.safetensors"
CLIP_FOLDERS = ("clip_vision", "text_encoders", "clip")


def register_folders() -> None:
    """Make models/ipadapter and models/image_prompts model folders; extra_model_paths.yaml may have added more.

    Folders in which other packs keep adapters are adapter folders too, where they exist.
    """
    today = [(name, Path(folder_paths.models_dir) / name) for name in (ADAPTERS, PROMPTS)]
    others = old_adapter_folders(Path(folder_paths.models_dir), _paths("custom_nodes"))
    for name, path in today + [(ADAPTERS, path) for path in others]:
        if str(path) not in folder_paths.folder_names_and_paths.get(name, ([], set()))[0]:
            folder_paths.add_model_folder_path(name, str(path))


def model_folders(*names: str) -> dict[str, list[Path]]:
    """Folders by kind, for the index: of these kinds, or of all: adapters, CLIP vision and LoRAs."""
    return {name: _paths(name) for name in names or FOLDERS}


def _paths(name: str) -> list[Path]:
    return [Path(path) for path in folder_paths.folder_names_and_paths.get(name, ([], set()))[0]]


def models_folder() -> Path:
    """Where files that are downloaded go, each into its own folder below."""
    return Path(folder_paths.models_dir)


def model_index() -> Index:
    """The index of model files, with what is stored of it."""
    return Index(store_file(STORE, ADAPTERS))


def store_file(name: str, kind: str) -> Path | None:
    """In the host's user directory, where it has one, else in its models folder of this kind, where that is there."""
    if users := _user_directory():
        return users / name
    beside = Path(folder_paths.models_dir) / kind
    return beside / STORE_BESIDE_MODELS if beside.is_dir() else None


def scores_folder() -> Path | None:
    """Where the Score node keeps embeddings: in the host's user directory, None where it has none."""
    users = _user_directory()
    return None if users is None else users / SCORES


def settings_file() -> Path | None:
    """Where the host keeps what is set in its page: the default user's file, else that of the first user who has one."""
    users = _user_directory()
    found = users.glob("*/comfy.settings.json") if users else ()
    return min(found, key=lambda path: (path.parent.name != "default", path), default=None)


def _user_directory() -> Path | None:
    known = getattr(folder_paths, "get_user_directory", None)
    return Path(known()) if known else None


def adapter_files() -> list[str]:
    """Names for the menu: a directory listing, no file is opened."""
    return [name for name in folder_paths.get_filename_list(ADAPTERS) if name.lower().endswith(EXTENSIONS)]


def menu_of(kind: str) -> list[str]:
    """Names of 'clip_vision' or 'loras' files, as the host's own loaders list them."""
    return list(folder_paths.get_filename_list(kind))


def adapter_path(name: str) -> str:
    """Of an adapter by its menu name. Raises MissingFileError with the nearest names, and where to get a released file."""
    known = same_path(str(name), adapter_files())
    path = folder_paths.get_full_path(ADAPTERS, known) if known else None
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(ADAPTERS))
        found = list_nearest(str(name), adapter_files())
        raise MissingFileError(
            f"adapter file '{shown(name)}' is not in {folders}. Files found there: {found}. {_where_to_get(name)}"
        )
    return path


def adapter_stamp(name: str | None) -> str:
    """Changes when the file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    known = same_path(str(name), adapter_files())
    names = [known] if known else adapter_files() if name is None else []
    return file_stamp(*(folder_paths.get_full_path(ADAPTERS, each) for each in names))


def goal_stamp(intent: Intent | None) -> str:
    """The same of all files that may serve an intent; None, of a linked one: any intent."""
    return file_stamp(*(entry.path for entry in candidates(model_index().scan(model_folders()), intent)))


def _where_to_get(name: str) -> str:
    """Of a released file: installed files of its layout, and where to get it. Of any other: what to do."""
    known = file_named(name) or (None if adapter_files() else file_named(_USUAL))
    if known is None:
        return "Pick one of them, or download the adapter (see docs/models.md) into the first folder."
    entries = model_index().scan(model_folders(ADAPTERS))
    alike = [entry.name for entry in entries if known in look_alikes(entry)]
    there = (
        f"Of the same kind by their contents: {', '.join(alike[:4])}; pick one, or get " if alike else "Get "
    )
    return f"{there}{known.download_hint}."


def adapter_variant(path: str) -> Variant | None:
    """Which variant the file is, where its keys allow several; the index remembers its sha256."""
    index = model_index()
    return variant_of(index.inspect(Path(path)), index.sha256)


@contextmanager
def suggest_encoder(spec: AdapterSpec) -> Iterator[None]:
    """A WrongEncoderError in the block gets the installed file that is the right encoder, or where to get one."""
    try:
        yield
    except WrongEncoderError as error:
        entries = model_index().scan(model_folders("clip_vision"))
        installed = find_encoder(entries, spec.encoder, (spec.feature,))
        known = encoder_file(spec.encoder)
        hint = f" Get {known.download_hint}." if known else ""
        raise WrongEncoderError(
            f"{error} Installed is {installed.name}." if installed else f"{error}{hint}"
        ) from error


def encoder_for(spec: AdapterSpec) -> Path:
    """An installed encoder that an adapter reads. Raises MissingFileError, with where to get one."""
    entries = model_index().scan(model_folders("clip_vision"))
    installed = find_encoder(entries, spec.encoder, (spec.feature,))
    if installed is None:
        known = encoder_file(spec.encoder)
        hint = f" Get {known.download_hint}, or connect" if known else " Connect"
        raise MissingFileError(
            f"this {spec.variant.value} adapter looks at pictures with {spec.encoder}, which is not installed.{hint} "
            "clip_vision."
        )
    return installed.path


def file_stamp(*paths: str | Path | None) -> str:
    """A hash of the files' times and sizes, 'missing' if none is there."""
    found = [(path, regular(Path(path))) for path in paths if path]
    marks = [f"{path} {on_disk.st_mtime_ns} {on_disk.st_size}" for path, on_disk in found if on_disk]
    return hashlib.sha256("\n".join(marks).encode("utf-8", "replace")).hexdigest() if marks else "missing"


def below_output(prefix: str) -> Path:
    """A path in the output folder. Raises SettingError for a name that leads out of it."""
    return below(
        Path(folder_paths.get_output_directory()),
        prefix,
        f"filename_prefix '{shown(prefix)}' leads out of the output folder. Use a name below it.",
    )


def model_path(kind: str, name: str) -> str:
    """A model by its name in the host's folders of this kind, or by its path. Raises MissingFileError."""
    if regular(Path(name)):
        return name
    installed = folder_paths.get_filename_list(kind)
    found = folder_paths.get_full_path(kind, match_name(name, installed) or name)
    if found is None:
        folders = ", ".join(map(str, _paths(kind)))
        there = list_nearest(str(name), installed)
        raise MissingFileError(
            f"'{name}' is no file, and not in {folders}. Files there: {there}. Give a name of one of them, or a path."
        )
    return found


def installed(kind: str, name: str) -> Path | None:
    """A file of the host's menu of this kind, of any kind it knows; None for any other name, whatever path it is."""
    if name not in menu_of(kind):
        return None
    path = folder_paths.get_full_path(kind, name)
    return Path(path) if path else None


def clip_models() -> dict[str, Path]:
    """Folders of CLIP models in transformers' layout by name, in the host's folders of encoders, at most two deep."""
    found: dict[str, Path] = {}
    for root in (root for kind in CLIP_FOLDERS for root in _paths(kind)):
        for config in sorted((*root.glob("*/config.json"), *root.glob("*/*/config.json"))):
            found.setdefault(config.parent.relative_to(root).as_posix(), config.parent)
    return found


def clip_model(name: object, known: str) -> str | Path:
    """The CLIP model that a graph may name: a folder of `clip_models`, or the one known model of the hub, which is taken
    from its folder where it is installed. Nothing else is looked for. Raises MissingFileError."""
    models = clip_models()
    wanted = name.replace("\\", "/") if isinstance(name, str) else ""
    if wanted in models:
        return models[wanted]
    if wanted == known:
        return models.get(known.rpartition("/")[2], known)
    folder = next(iter(_paths(CLIP_FOLDERS[0])), Path(folder_paths.models_dir) / CLIP_FOLDERS[0])
    raise MissingFileError(
        f"clip_model '{shown(name)}' is no model that a graph may use. Installed are: {', '.join(models) or 'none'}. Take "
        f"one of them or {known}, or put the model's folder, in transformers' layout, into {folder}; others work on the "
        "command line with --clip."
    )


def input_pictures(name: str) -> list[Path]:
    """The pictures in a folder of the input folder, by name. Raises SettingError or MissingFileError."""
    root = Path(folder_paths.get_input_directory())
    refusal = f"the folder '{shown(name)}' leads out of {root}. Give the name of a folder in it."
    folder = below(root, name, refusal)
    found = picture_files(folder)
    if not found:
        there = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())[:6])
        state = "has no pictures" if folder.is_dir() else "does not exist"
        raise MissingFileError(
            f"the folder '{shown(name)}' in {root} {state}. Put PNG, JPEG or WebP files into it, or give another; folders "
            f"there: {there or 'none'}."
        )
    return found


def pictures_stamp(name: object) -> str:
    """Changes when a picture in this folder does, so that the host runs the node again; 'missing' where there is none."""
    try:
        return file_stamp(*input_pictures(str(name)))
    except ImagePromptError:
        return "missing"


def training_folder(name: str) -> Path:
    """Of a training run, in the output folder. Raises SettingError."""
    return below_output(f"{TRAINING}/{name}")


def new_adapter_path(name: str, suffix: str) -> Path:
    """A free path in the first adapter folder: of this name, or with a number. Raises SettingError or WriteError."""
    folder = _paths(ADAPTERS)[0]
    stem = name.removesuffix(suffix) or "adapter"
    path = below(
        folder,
        f"{stem}{suffix}",
        f"the name '{shown(name)}' leads out of {folder}. Give a name without '..'.",
    )
    return next_free(path.with_suffix(""), suffix) if os.path.lexists(path) else path
