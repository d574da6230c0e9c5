"""The presets of the unified loaders: which files each means, by their names, else by their contents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from ... import host
from ...host import face_models, folders
from ...ipadapter_core.errors import MismatchError, MissingFileError, SettingError
from ...ipadapter_core.families.unet import KOLORS, SD15, SDXL
from ...model_files.choice import Missing, ResolvedFiles, resolve
from ...model_files.index import Entry
from ...model_files.inspection import FileKind
from ...model_files.released import Intent

Names = tuple[str, ...]
_V1, _XL, _KO = SD15.name, SDXL.name, KOLORS.name
_VIT_H = r"vit\.h\.14.*s32b\.b79k$|ipadapter.*sd15$|sd1\.?5.*model$"
_VIT_G = r"vit\.bigg\.14.*39b\.b160k$|ipadapter.*sdxl$|sdxl.*model$"
_VIT_L_336 = r"clip\.vit\.large\.patch14\.336$"


@dataclass(frozen=True)
class Preset:
    """begins: of the preset's text, in small letters. adapters, loras: how names of their files end, by family and in
    order of preference, with '.' for anything but letters and digits. encoder: what the name of its file holds.
    variants: the only ones meant, where the intent has several. family: of the adapters, whatever the model's is.
    """

    begins: str
    intent: Intent
    adapters: Mapping[str, Names]
    encoder: str = _VIT_H
    loras: Mapping[str, str] = field(default_factory=dict)
    variants: Names = ()
    family: str = ""

    @property
    def faces(self) -> bool:
        return self.begins.startswith("faceid")


def _face_id(begins: str, intent: Intent, name: str, variants: Names, families: Names) -> Preset:
    """A preset whose adapter has a LoRA beside it."""
    return Preset(
        begins,
        intent,
        {family: (f"{name}.{_FILE[family]}",) for family in families},
        loras={family: f"{name}.{_FILE[family]}.lora" for family in families},
        variants=variants,
    )


_FILE = {_V1: "sd15", _XL: "sdxl"}
# The more specific first: a preset is the first row whose text it begins with.
PRESETS: tuple[Preset, ...] = (
    Preset("light", Intent.LIGHT, {_V1: ("sd15.light.v11", "sd15.light")}),
    Preset("standard", Intent.STANDARD, {_V1: ("ip.adapter.sd15",), _XL: ("ip.adapter.sdxl.vit.h",)}),
    Preset("vit-g", Intent.BIG_ENCODER, {_V1: ("sd15.vit.g",), _XL: ("ip.adapter.sdxl",)}, _VIT_G),
    Preset("plus face", Intent.PLUS_FACE, {_V1: ("plus.face.sd15",), _XL: ("plus.face.sdxl.vit.h",)}),
    Preset("plus", Intent.PLUS, {_V1: ("ip.adapter.plus.sd15",), _XL: ("plus.sdxl.vit.h",)}),
    Preset("full", Intent.FULL_FACE, {_V1: ("full.face.sd15",)}),
    Preset("faceid portrait unnorm", Intent.PORTRAIT_STRONG, {_XL: ("portrait.sdxl.unnorm",)}),
    Preset(
        "faceid portrait",
        Intent.PORTRAIT,
        {_V1: ("portrait.v11.sd15", "portrait.sd15"), _XL: ("portrait.sdxl",)},
    ),
    _face_id("faceid plus v2", Intent.FACE_ID_PLUS, "faceid.plusv2", ("faceid plus v2",), (_V1, _XL)),
    _face_id("faceid plus", Intent.FACE_ID_PLUS, "faceid.plus", ("faceid plus",), (_V1,)),
    _face_id("faceid", Intent.FACE_ID, "faceid", (), (_V1, _XL)),
    Preset("composition", Intent.COMPOSITION, {f: (f"plus.composition.{end}",) for f, end in _FILE.items()}),
    Preset(
        "kolors",
        Intent.PLUS,
        {_KO: ("ip.adapter.plus.general", "kolors.ip.adapter.plus")},
        _VIT_L_336,
        family=_KO,
    ),
)


def preset_named(text: str, menu: Sequence[str] = ()) -> Preset:
    """The preset that a text begins with, whatever its capitals and blanks. Raises SettingError with the menu."""
    wanted = " ".join(text.lower().split())
    found = next((preset for preset in PRESETS if wanted.startswith(preset.begins)), None)
    if found is None:
        known = menu or [preset.begins for preset in PRESETS]
        raise SettingError(f"preset '{text}' is not known here. Pick one of: {'; '.join(known)}.")
    return found


def files_of(preset: Preset, model: Any, lora_strength: float = 0.0) -> ResolvedFiles:
    """Adapter, encoder and LoRA of a preset for this model. Raises MissingFileError that says what to get.

    A file that is named as the preset expects is taken if its layout is the right one; else contents decide.
    """
    index, family = folders.model_index(), _family(preset, host.base_family(model))
    entries = sorted(index.scan(folders.model_folders()), key=lambda entry: entry.name)
    options = (face_models.installed() if preset.faces else None, preset.variants, lora_strength != 0)
    found = None
    for entry in _adapters_named(entries, preset.adapters.get(family, ())):
        others = [other for other in entries if other.folder != folders.ADAPTERS]
        found = resolve([entry, *others], family, preset.intent, _unhashed, *options)
        if isinstance(found, ResolvedFiles):
            break
    if not isinstance(found, ResolvedFiles):
        found = resolve(entries, family, preset.intent, index.sha256, *options)
    if isinstance(found, Missing):
        raise MissingFileError(found.text)
    return _with_usual_names(found, preset, family, entries)


def _unhashed(_: Entry) -> str:
    """In place of a sha256: the name is trusted, and no gigabytes are read to check it."""
    return ""


def _family(preset: Preset, family: str) -> str:
    """Kolors has SDXL's sites, so that it takes SDXL's adapters, and SDXL the 'plus' one of Kolors."""
    if preset.family and family not in (preset.family, _XL):
        raise MismatchError(
            f"preset '{preset.begins}' is for {preset.family} models, and the connected model is {family}. "
            "Pick another preset, or load such a model."
        )
    return preset.family or (_XL if family == _KO else family)


def _adapters_named(entries: Sequence[Entry], endings: Names) -> list[Entry]:
    return [
        entry
        for ending in endings
        for entry in entries
        if entry.folder == folders.ADAPTERS and _dotted(entry.name).endswith(ending)
    ]


def _with_usual_names(
    files: ResolvedFiles, preset: Preset, family: str, entries: Sequence[Entry]
) -> ResolvedFiles:
    """The encoder of the usual name, if there are several that fit, and the LoRA of the usual name, if it is there."""
    lora_name = preset.loras.get(family)
    loras = [
        e
        for e in entries
        if e.info.kind is FileKind.LORA and lora_name and _dotted(e.name).endswith(lora_name)
    ]
    return replace(
        files,
        encoder=_encoder_named(files.encoder, preset.encoder, entries),
        lora=loras[0] if loras else files.lora,
    )


def _encoder_named(chosen: Entry | None, pattern: str, entries: Sequence[Entry]) -> Entry | None:
    if chosen is None or chosen.info.encoder is None:
        return chosen
    wanted = chosen.info.encoder
    alike = [e for e in entries if e.folder == chosen.folder and e.info.encoder == wanted]
    return next((e for e in alike if re.search(pattern, _dotted(e.name))), chosen)


def _dotted(name: str) -> str:
    """'SD15/ip-adapter_sd15.bin' -> 'sd15.ip.adapter.sd15'."""
    return re.sub(r"[^a-z0-9]+", ".", str(PurePosixPath(name).with_suffix("")).lower()).strip(".")
