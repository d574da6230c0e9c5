"""The host's folders: where adapters and saved prompts lie, and what a missing one's error says."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths

from ..ipadapter_core.embeds import SUFFIX as EMBEDS_SUFFIX
from ..ipadapter_core.errors import MismatchError, MissingFileError, WrongEncoderError, shown
from ..ipadapter_core.faces.analysis import WHERE_TO_GET
from ..ipadapter_core.faces.graphs import is_cut
from ..ipadapter_core.library import places
from ..ipadapter_core.library.catalog import encoder_file, file_named
from ..ipadapter_core.library.choosing import alike_of, candidates, find_encoder, variant_of
from ..ipadapter_core.library.findings import Found, look_for_prompt
from ..ipadapter_core.library.index import Index, files_below, regular
from ..ipadapter_core.library.nearest import by_nearness, resolve, same_path
from ..ipadapter_core.library.released import Intent
from ..ipadapter_core.paths import below, next_free
from ..ipadapter_core.spec import AdapterSpec, Feature, Variant

ADAPTERS = "ipadapter"
PROMPTS = "image_prompts"
TRAINING = "image_prompt_training"
INSIGHTFACE = "insightface"
CLIP_FOLDERS = ("clip_vision", "text_encoders", "clip")
_TODAY = {
    "%year%": "%Y",
    "%month%": "%m",
    "%day%": "%d",
    "%hour%": "%H",
    "%minute%": "%M",
    "%second%": "%S",
}
_EMBEDS_LABELS = ("", "output/", "models/")  # of the input folder: none, as the de-facto pack names its files
EXTENSIONS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def register_folders() -> None:
    """Make models/ipadapter and models/image_prompts model folders; extra_model_paths.yaml may have added more.

    Folders in which other packs keep adapters are adapter folders too, where they exist.
    """
    today = [(name, Path(folder_paths.models_dir) / name) for name in (ADAPTERS, PROMPTS)]
    others = places.old_adapter_folders(Path(folder_paths.models_dir), _paths("custom_nodes"))
    for name, path in today + [(ADAPTERS, path) for path in others]:
        if str(path) not in folder_paths.folder_names_and_paths.get(name, ([], set()))[0]:
            folder_paths.add_model_folder_path(name, str(path))


def model_folders(*names: str) -> dict[str, list[Path]]:
    """Folders by kind, for the index: of these kinds, or of all: adapters, CLIP vision and LoRAs."""
    return {name: _paths(name) for name in names or places.FOLDERS}


def _paths(name: str) -> list[Path]:
    return [Path(path) for path in folder_paths.folder_names_and_paths.get(name, ([], set()))[0]]


def model_index() -> Index:
    """What is known of model files."""
    return Index(_store(places.STORE, ADAPTERS))


def _store(name: str, kind: str) -> Path | None:
    """In the host's user directory, where it has one, else in its models folder of this kind, where that is there."""
    if users := _user_directory():
        return users / name
    beside = Path(folder_paths.models_dir) / kind
    return beside / places.STORE_BESIDE_MODELS if beside.is_dir() else None


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
    known = same_path(str(name), adapter_files())
    path = folder_paths.get_full_path(ADAPTERS, known) if known else None
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(ADAPTERS))
        found = by_nearness(str(name), adapter_files())
        raise MismatchError(
            f"adapter file '{shown(name)}' is not in {folders}. Files found there: {found}. {_where_to_get(name)}"
        )
    return path


def adapter_stamp(name: str | None) -> str:
    """Changes when the file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    known = same_path(str(name), adapter_files())
    names = [known] if known else adapter_files() if name is None else []
    return _stamp(*(folder_paths.get_full_path(ADAPTERS, each) for each in names))


def goal_stamp(intent: Intent | None) -> str:
    """The same of all files that may serve a goal; None, of a linked one: any goal."""
    return _stamp(*(entry.path for entry in candidates(model_index().scan(model_folders()), intent)))


def _where_to_get(name: str) -> str:
    """Of a released file: another of its layout that is installed, and where to get it. Else what to do."""
    known = file_named(name)
    if known is None:
        return "Pick one of them, or download the adapter (see the README's table) into the first folder."
    entries = model_index().scan(model_folders(ADAPTERS))
    alike = [entry.name for entry in entries if known in alike_of(entry)]
    there = (
        f"Of the same kind by their contents: {', '.join(alike[:4])}; pick one, or get " if alike else "Get "
    )
    return f"{there}{known.order}."


def adapter_variant(path: str) -> Variant | None:
    """Which variant the file is where its keys leave it open; what was found out is remembered by its time and size."""
    index = model_index()
    return variant_of(index.look_at(Path(path)), index.sha256)


@contextmanager
def naming_encoder(spec: AdapterSpec) -> Iterator[None]:
    """Where the connected encoder is the wrong one, say which installed file is the right one, or where to get it."""
    try:
        yield
    except WrongEncoderError as error:
        entries = model_index().scan(model_folders("clip_vision"))
        installed = find_encoder(entries, spec.encoder, spec.feature is Feature.IMAGE_EMBEDS)
        known = encoder_file(spec.encoder)
        hint = f" Get {known.order}." if known else ""
        raise WrongEncoderError(
            f"{error} Installed is {installed.name}." if installed else f"{error}{hint}"
        ) from error


def saved_prompts() -> dict[str, Path]:
    """Saved prompts by menu name ('output/image_prompts/prompt_00001.safetensors').

    Headers are read once and remembered by size and time, apart from what is known of models.
    """
    roots = [("input", folder_paths.get_input_directory()), ("output", folder_paths.get_output_directory())]
    roots += [("models", folder) for folder in folder_paths.get_folder_paths(PROMPTS)]
    index = Index(_store(places.PROMPT_STORE, PROMPTS), look_for_prompt)
    folders = {f"{number}": [Path(root)] for number, (_, root) in enumerate(roots)}
    prompts = (
        entry for entry in index.scan(folders, (".safetensors",)) if entry.finding.kind is Found.PROMPT
    )
    return {f"{roots[int(entry.folder)][0]}/{entry.name}": entry.path for entry in prompts}


def prompt_path(name: str) -> Path:
    prompts = saved_prompts()
    known = same_path(str(name), list(prompts))
    if known is None:
        raise MismatchError(
            f"saved prompt '{shown(name)}' is not there any more. Found: {by_nearness(str(name), list(prompts))}. "
            "Save it again with Image Prompt: Save, or put the file in the input folder."
        )
    return prompts[known]


def stamp(name: str | None) -> str:
    """Changes when the file does, so that the host runs the node again. None, of a linked name: when any of them does."""
    prompts = saved_prompts()
    known = same_path(str(name), list(prompts))
    return _stamp(*(prompts.values() if name is None else [prompts[known]] if known else []))


def _stamp(*paths: str | Path | None) -> str:
    found = [(path, regular(Path(path))) for path in paths if path]
    marks = [f"{path} {on_disk.st_mtime_ns} {on_disk.st_size}" for path, on_disk in found if on_disk]
    return hashlib.sha256("\n".join(marks).encode("utf-8", "replace")).hexdigest() if marks else "missing"


def new_prompt_path(prefix: str) -> Path:
    """The next free '<prefix>_00001.safetensors' in the output folder; its folder is made."""
    return next_free(_below_output(prefix), ".safetensors")


def _below_output(prefix: str) -> Path:
    """A place in the output folder. Raises MismatchError."""
    return below(
        Path(folder_paths.get_output_directory()),
        prefix,
        f"filename_prefix '{shown(prefix)}' leads out of the output folder. Use a name below it.",
    )


def new_embeds_path(prefix: str) -> Path:
    """The next free '<prefix>_00001.ipadpt' in the output folder. '%year%' and the like stand for today, as in SaveImage."""
    for word, code in _TODAY.items():
        prefix = prefix.replace(word, time.strftime(code))
    return next_free(_below_output(prefix), EMBEDS_SUFFIX)


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
    """The file that a workflow means, with '\\' or '/', in any of the folders. Raises MismatchError."""
    if path := _embeds(name):
        return path
    raise MismatchError(
        f"saved embeds '{shown(name)}' are not in the input or output folder nor in models/{PROMPTS}. Found: "
        f"{by_nearness(str(name), list(embeds_files()))}. Save them again with IPAdapter Save Embeds, or put the file in "
        "the input folder."
    )


def embeds_stamp(name: str) -> str:
    """Changes when the file does, so that the host runs the node again."""
    return _stamp(_embeds(name))


def embeds_name(name: str) -> str | None:
    """The menu's name of the embeds that a workflow means; None if there are none."""
    found = list(embeds_files())
    same = (same_path(label + name, found) for label in _EMBEDS_LABELS)
    return next((known for known in same if known), None)


def _embeds(name: str) -> Path | None:
    known = embeds_name(name)
    return embeds_files()[known] if known else None


def face_models() -> dict[str, Path]:
    """Folders of face models by name ('buffalo_l'), for the menu: directories are nearest_text, no file is opened.

    They lie in models/insightface/models, as insightface unpacks them, or one level up, and models/antelopev2; a
    zip unpacked into a folder of its own name (antelopev2/antelopev2) is one too. The first of a name wins.
    """
    folders = [folder for parent in _face_parents() for folder in places.folders_in(parent)]
    folders.append(Path(folder_paths.models_dir) / "antelopev2")
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.name != "models" and (any(folder.glob("*.onnx")) or any(folder.glob("*/*.onnx"))):
            found.setdefault(folder.name, folder)
    return found


def installed_face_models() -> list[str]:
    """Names of those whose files are whole, as far as is seen without reading them."""
    found = face_models()
    files_of = {
        name: [path for _, path, _ in files_below([folder], (".onnx",))] for name, folder in found.items()
    }
    return [name for name, paths in files_of.items() if not any(map(is_cut, paths))]


def _face_parents() -> list[Path]:
    """models/insightface, those that other packs or extra_model_paths.yaml added, and the 'models' in each."""
    added = folder_paths.folder_names_and_paths.get(INSIGHTFACE, ([], set()))[0]
    roots = dict.fromkeys(Path(root) for root in (os.path.join(folder_paths.models_dir, INSIGHTFACE), *added))
    return [parent for root in roots for parent in (root / "models", root)]


def face_model_path(name: str) -> Path:
    models = face_models()
    if str(name) not in models:
        raise MismatchError(
            f"face model '{shown(name)}' is not in {_face_parents()[0]}. Found: {by_nearness(str(name), list(models))}. "
            f"{WHERE_TO_GET}, and unpack it so that the .onnx files lie in {_face_parents()[0] / 'buffalo_l'} "
            "(or antelopev2)."
        )
    return models[name]


def face_model_stamp(name: str | None) -> str:
    """Changes when one of its files does. None, of a linked name: when one of any does."""
    models = face_models()
    folders = models.values() if name is None else [models[name]] if name in models else []
    return _stamp(*(path for _, path, _ in sorted(files_below(list(folders), (".onnx",)))))


def model_path(kind: str, name: str) -> str:
    """A model by its name in the host's folders of this kind, or by its path. Raises MissingFileError."""
    if regular(Path(name)):
        return name
    installed = folder_paths.get_filename_list(kind)
    found = folder_paths.get_full_path(kind, resolve(name, installed) or name)
    if found is None:
        folders = ", ".join(map(str, _paths(kind)))
        there = by_nearness(str(name), installed)
        raise MissingFileError(
            f"'{name}' is no file, and not in {folders}. Files there: {there}. Give a name of one of them, or a path."
        )
    return found


def clip_models() -> dict[str, Path]:
    """Folders of CLIP models in transformers' layout by name, in the host's folders of encoders, at most two deep."""
    found: dict[str, Path] = {}
    for root in (root for kind in CLIP_FOLDERS for root in _paths(kind)):
        for config in sorted((*root.glob("*/config.json"), *root.glob("*/*/config.json"))):
            found.setdefault(config.parent.relative_to(root).as_posix(), config.parent)
    return found


def clip_model(name: object, known: str) -> str | Path:
    """What a graph may name: a folder of `clip_models`, or the one known model of the hub, taken from there where it is
    installed. Nothing else is looked for anywhere. Raises MissingFileError."""
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


def training_folder(name: str) -> Path:
    """Of a training run, in the output folder."""
    return _below_output(f"{TRAINING}/{name}")


def new_adapter_path(name: str, suffix: str) -> Path:
    """A free file in the first adapter folder: its name, or with a number."""
    folder = _paths(ADAPTERS)[0]
    stem = name.removesuffix(suffix) or "adapter"
    path = below(
        folder,
        f"{stem}{suffix}",
        f"the name '{shown(name)}' leads out of {folder}. Give a name without '..'.",
    )
    return next_free(path.with_suffix(""), suffix) if os.path.lexists(path) else path
