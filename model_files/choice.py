"""Which installed files serve an intent on a base-model family: adapter, encoder, LoRA, and why; or what to get.

Contents decide. Where released files share one layout (base and light, plus, plus-face and composition), the sha256
of known files decides; of files that are not known, the hints in their names, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..ipadapter_core.families.table import family_named
from ..ipadapter_core.spec import Feature, Variant
from ..ipadapter_core.variants import feature_of
from .catalog import CATALOG, catalog_row, encoder_file, encoder_files, families_for, files_for
from .encoders import EncoderFacts, pooling_note
from .identification import Sha256, guess_by_name, identify, in_expected_folder, look_alikes
from .index import Entry
from .inspection import FileKind
from .released import Intent, Kind, KnownFile

# Whether an encoder's file holds the part that gives a feature.
_PARTS: Mapping[Feature, Callable[[EncoderFacts], bool]] = {
    Feature.IMAGE_EMBEDS: lambda facts: facts.projection > 0,
    Feature.POOLED: lambda facts: facts.pooling,
    Feature.PENULTIMATE: lambda facts: True,
    Feature.NONE: lambda facts: True,
}


@dataclass(frozen=True)
class ResolvedFiles:
    """The files of one intent, and why they were chosen.

    encoder: None where the adapter reads none. lora: None where none is needed, or it is inside the adapter. variant: of
    the adapter as identified by its hash or name, for `detect`. faces: name of the face model it was trained with, ''
    for none.
    """

    adapter: Entry
    encoder: Entry | None
    lora: Entry | None
    variant: str
    faces: str
    reason: str


@dataclass(frozen=True)
class Missing:
    """files: what to get before the intent can be served, none where no released file serves it. text: all of it."""

    files: tuple[KnownFile, ...]
    text: str


def resolve(
    entries: Sequence[Entry],
    family: str,
    intent: Intent,
    sha256: Sha256,
    face_models: Collection[str] | None = None,
    variants: Collection[str] = (),
    needs_lora: bool = True,
) -> ResolvedFiles | Missing:
    """The files of `entries` that serve `intent` on `family` ('SD1.5', 'SDXL', 'Kolors', 'Flux.1', 'SD3.5 Large').

    sha256: as Index.sha256; called only where contents leave a doubt. face_models: names of those installed, None if
    that is not to be checked. variants: the only ones that will do, where the intent has several. needs_lora: whether
    a missing LoRA counts.
    """
    base = family_named(family)
    family = base.adapters_of if base else family
    goals = [known for known in files_for(intent, family) if not variants or known.variant in variants]
    entries = [entry for entry in entries if in_expected_folder(entry)]
    if not goals:
        return _no_such_goal(family, intent)
    picked = _pick_adapter(entries, goals, sha256)
    if picked is None:
        return _missing((goals[0], *_lacking(entries, goals[0], face_models)), family, intent, entries)
    adapter, known, why = picked
    encoder, lora = _encoder_for(entries, known), _pick_lora(entries, adapter, known, sha256)
    faces = known.faces.removesuffix(".zip")
    has_lora = bool(lora) or _contains_lora(adapter) or not needs_lora
    lacking = _lacking(entries, known, face_models, has_lora)
    if lacking:
        return _missing(lacking, family, intent, entries, adapter)
    parts = [why]
    parts += [f"{encoder.name} is {known.encoder}"] if encoder else ["no encoder is needed"]
    if lora:
        parts.append(f"{lora.name} is its LoRA")
    elif _contains_lora(adapter):
        parts.append("its LoRA is in the file")
    parts += [base.caution] if base and base.caution else []
    return ResolvedFiles(adapter, encoder, lora, known.variant, faces, "; ".join(parts))


# --- adapter -----------------------------------------------------------------------------------------------------


def _pick_adapter(
    entries: Sequence[Entry], goals: Sequence[KnownFile], sha256: Sha256
) -> tuple[Entry, KnownFile, str] | None:
    """By layout where that is enough, else by sha256, else by name."""
    alike = [(entry, goal) for goal in goals for entry in entries if goal in look_alikes(entry)]
    for entry, goal in alike:
        if _contents_decide(entry, goal):
            return entry, goal, f"{entry.name} is {_described(goal)} by its contents"
    known = {entry.path: identify(entry, look_alikes(entry), sha256) for entry, _ in alike}
    for entry, goal in alike:
        if known[entry.path] is goal:
            return entry, goal, f"{entry.name} is {goal.name} by its sha256"
    for entry, goal in alike:
        if known[entry.path] is None and guess_by_name(entry, look_alikes(entry)) is goal:
            kind = _described(goal)
            why = f"{entry.name} is taken for {kind} by its name, since files of this layout look alike"
            return entry, goal, why
    return None


def candidates(entries: Sequence[Entry], intent: Intent | None) -> list[Entry]:
    """Files that may serve an intent on any family: adapters, their encoders and their LoRAs. None: any intent."""
    goals = [known for known in CATALOG if known.serves(intent)]
    names = {known.lora for known in goals if known.lora}
    encoders = {known.encoder for known in goals}
    wanted = {*goals, *map(catalog_row, names), *filter(None, map(encoder_file, encoders))}
    placed = [entry for entry in entries if in_expected_folder(entry)]
    return [e for e in placed if wanted.intersection(look_alikes(e)) or (names and _is_named_faceid_lora(e))]


def _is_named_faceid_lora(entry: Entry) -> bool:
    """Older presets take a LoRA by its name alone."""
    return entry.info.kind is FileKind.LORA and "faceid" in entry.name.lower()


def _contents_decide(entry: Entry, goal: KnownFile) -> bool:
    """Whether every released file of this layout is of one variant and serves the goal's intent."""
    facts = entry.info.adapter
    intents = {known.intent for known in look_alikes(entry)}
    return bool(facts) and len(facts.variants) == 1 and intents == {goal.intent}


def _described(known: KnownFile) -> str:
    intent = known.intent.value if known.intent else known.kind.value
    return f"the {intent} adapter for {known.family}"


# --- what belongs with it ----------------------------------------------------------------------------------------


def find_encoder(entries: Sequence[Entry], encoder: str, reads: Iterable[Feature]) -> Entry | None:
    """An installed encoder of this name, by its widths; of several, the usual size and the released file first.

    reads: what adapters read of it, the parts for which some files lack.
    """
    released, wanted = {known.size for known in encoder_files(encoder)}, [_PARTS[each] for each in reads]
    fits = [
        (facts.name != encoder, entry.size not in released, entry.name, entry)
        for entry in entries
        if (facts := entry.info.encoder)
        and in_expected_folder(entry)
        and _is_encoder(facts, encoder)
        and all(holds(facts) for holds in wanted)
    ]
    return min(fits, key=lambda fit: fit[:3])[3] if fits else None


def _is_encoder(facts: EncoderFacts, encoder: str) -> bool:
    """Also one for another image size, as 'CLIP ViT-H/14-448' is of 'CLIP ViT-H/14'."""
    return facts.name == encoder or facts.name.startswith(f"{encoder}-")


def _encoder_for(entries: Sequence[Entry], known: KnownFile) -> Entry | None:
    return find_encoder(entries, known.encoder, (_feature_of(known),))


def _feature_of(known: KnownFile) -> Feature:
    family = family_named(known.family)
    return feature_of(Variant(known.variant), family.architecture.adapters_of if family else "UNet")


def _contains_lora(entry: Entry) -> bool:
    return bool(entry.info.adapter and entry.info.adapter.lora)


def _pick_lora(entries: Sequence[Entry], adapter: Entry, known: KnownFile, sha256: Sha256) -> Entry | None:
    """The separate LoRA of an adapter that has none inside: by sha256, else by name among those of its layout."""
    if not known.lora or _contains_lora(adapter):
        return None
    wanted = catalog_row(known.lora)
    shaped = [entry for entry in entries if entry.info.lora and wanted in look_alikes(entry)]
    known_as = {entry.path: identify(entry, look_alikes(entry), sha256) for entry in shaped}
    by_hash = [entry for entry in shaped if known_as[entry.path] is wanted]
    unknown = [entry for entry in shaped if known_as[entry.path] is None]
    by_hint = [entry for entry in unknown if guess_by_name(entry, look_alikes(entry)) is wanted]
    return next(iter(by_hash + by_hint), None)


def _lacking(
    entries: Sequence[Entry],
    known: KnownFile,
    face_models: Collection[str] | None,
    has_lora: bool = True,
) -> tuple[KnownFile, ...]:
    """Released files that belong with this adapter and are not installed."""
    encoder = encoder_file(known.encoder)
    lacking = [encoder] if encoder and _encoder_for(entries, known) is None else []
    lacking += [] if has_lora or not known.lora else [catalog_row(known.lora)]
    if known.faces and face_models is not None and known.faces.removesuffix(".zip") not in face_models:
        lacking.append(catalog_row(known.faces))
    return tuple(lacking)


# --- what is missing ---------------------------------------------------------------------------------------------


def _no_such_goal(family: str, intent: Intent) -> Missing:
    served = [goal.value for goal in Intent if files_for(goal, family)]
    return Missing(
        (),
        f"no released adapter serves '{intent.value}' on {family}; it exists for {', '.join(families_for(intent))}. "
        f"For {family} there are: {', '.join(served) or 'none'}.",
    )


def _missing(
    files: Sequence[KnownFile],
    family: str,
    intent: Intent,
    entries: Sequence[Entry],
    adapter: Entry | None = None,
) -> Missing:
    have = f" {adapter.name} is there." if adapter else _installed(entries, family)
    wrong = _wrong_encoders(entries) if any(known.kind is Kind.ENCODER for known in files) else ""
    hints = "; ".join(known.download_hint for known in files)
    return Missing(tuple(files), f"for '{intent.value}' on {family} you need: {hints}.{have}{wrong}")


def _installed(entries: Sequence[Entry], family: str) -> str:
    there = [e.name for e in entries if (facts := e.info.adapter) and facts.family == family]
    return f" Adapters for {family} found: {', '.join(there[:6]) or 'none'}."


def _wrong_encoders(entries: Sequence[Entry]) -> str:
    there = [f"{e.name} ({facts.name}{pooling_note(facts)})" for e in entries if (facts := e.info.encoder)]
    return (
        f" Encoders found, none of which fits: {', '.join(there[:4])}." if there else " No encoder was found."
    )
