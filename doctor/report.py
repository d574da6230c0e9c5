"""The doctor's report: what each file is and needs, what is broken and why, and what a goal still needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import shown
from ..ipadapter_core.spec import Feature
from ..model_files.catalog import file_named
from ..model_files.choice import Missing, find_encoder, resolve
from ..model_files.encoders import pooling_note
from ..model_files.identification import Sha256
from ..model_files.index import Entry
from ..model_files.inspection import FileKind
from ..model_files.released import Intent


@dataclass(frozen=True)
class Row:
    """One line of the table. path: whole, for machines; the table shows folder and name."""

    file: str
    what: str
    family: str
    encoder: str
    state: str
    path: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self.file, self.what, self.family, self.encoder, self.state


@dataclass(frozen=True)
class Goal:
    """What one goal on one family uses, or still needs. ready: nothing is missing. needs: names of released files."""

    goal: str
    family: str
    ready: bool
    text: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    rows: tuple[Row, ...]
    broken: tuple[str, ...]
    goals: tuple[Goal, ...]
    notes: tuple[str, ...]
    folders: Mapping[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def build(
    entries: Sequence[Entry],
    goals: Sequence[tuple[str, Intent]],
    sha256: Sha256,
    face_models: Collection[str] | None = None,
    folders: Mapping[str, Sequence[object]] | None = None,
    notes: Sequence[str] = (),
    verify: bool = False,
) -> Report:
    """goals: (family, intent) to check. face_models: names of those installed, None if that is not to be checked.

    verify: compare files of released names with their sha256, which reads each of them once.
    """
    listed = [entry for entry in entries if _is_listed(entry)]
    changed = {entry.path: text for entry in listed if verify and (text := _changed(entry, sha256))}
    broken = [entry.info.text for entry in listed if entry.info.kind is FileKind.BROKEN]
    return Report(
        tuple(_row(entry, entries, entry.path in changed) for entry in listed),
        (*broken, *changed.values()),
        tuple(_goal(entries, family, intent, sha256, face_models) for family, intent in goals),
        tuple(notes),
        {name: [str(path) for path in paths] for name, paths in (folders or {}).items()},
    )


def _is_listed(entry: Entry) -> bool:
    """Of LoRAs, which can be thousands, FaceID's and broken ones only."""
    facts = entry.info.lora
    return entry.folder != "loras" or entry.info.kind is FileKind.BROKEN or bool(facts and facts.face)


def _changed(entry: Entry, sha256: Sha256) -> str | None:
    """A sentence about a file that has the name of a released one, but not its contents."""
    known = file_named(entry.name)
    if (
        known is None
        or known.sha256 is None
        or entry.info.kind is FileKind.BROKEN
        or entry.path.suffix.lower() != Path(known.name).suffix
    ):
        return None
    found = sha256(entry)
    if not found or known.has_hash(found):
        return None
    return (
        f"{shown(entry.name)} is not the published {known.name}: its sha256 is {found}, expected {known.sha256}. Rename it "
        f"if you made it; else download it again from {known.page}."
    )


def _row(entry: Entry, entries: Sequence[Entry], changed: bool) -> Row:
    what, family, encoder, state = _COLUMNS[entry.info.kind](entry, entries)
    state = "wrong sha256, see below" if changed else state
    return Row(f"{entry.folder}/{shown(entry.name)}", what, family, encoder, state, str(entry.path))


Columns = tuple[str, str, str, str]


def _adapter_columns(entry: Entry, entries: Sequence[Entry]) -> Columns:
    facts = entry.info.adapter
    assert facts is not None
    installed = find_encoder(entries, facts.encoder, (Feature(facts.feature),))
    needs_one = facts.feature != Feature.NONE.value
    state = "encoder missing" if needs_one and installed is None else _state_in(entry, "ipadapter")
    encoder = f"{facts.encoder}: {installed.name}" if installed else facts.encoder
    return f"{' or '.join(facts.variants)} adapter", facts.family, encoder, state


def _encoder_columns(entry: Entry, _: Sequence[Entry]) -> Columns:
    facts = entry.info.encoder
    assert facts is not None
    what = f"encoder {facts.name}, {facts.image_size} pixels{pooling_note(facts)}"
    return what, "", "", _state_in(entry, "clip_vision")


def _lora_columns(entry: Entry, _: Sequence[Entry]) -> Columns:
    facts = entry.info.lora
    assert facts is not None
    what = "FaceID LoRA" if facts.face else f"LoRA of rank {facts.rank}"
    return what, facts.family, "", _state_in(entry, "loras")


def _unused_columns(entry: Entry, _: Sequence[Entry]) -> Columns:
    return entry.info.text, "", "", "not used here"


def _broken_columns(entry: Entry, _: Sequence[Entry]) -> Columns:
    return "broken, see below", "", "", "broken"


_COLUMNS: dict[FileKind, Callable[[Entry, Sequence[Entry]], Columns]] = {
    FileKind.ADAPTER: _adapter_columns,
    FileKind.ENCODER: _encoder_columns,
    FileKind.LORA: _lora_columns,
    FileKind.PROMPT: _unused_columns,
    FileKind.OTHER: _unused_columns,
    FileKind.BROKEN: _broken_columns,
}


def _state_in(entry: Entry, folder: str) -> str:
    return "ok" if entry.folder == folder else f"move it to models/{folder}"


def _goal(
    entries: Sequence[Entry],
    family: str,
    intent: Intent,
    sha256: Sha256,
    face_models: Collection[str] | None,
) -> Goal:
    found = resolve(entries, family, intent, sha256, face_models)
    if isinstance(found, Missing):
        return Goal(intent.value, family, False, found.text, tuple(known.name for known in found.files))
    return Goal(intent.value, family, True, found.reason, ())
