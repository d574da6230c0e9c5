"""Which installed files serve a goal on a base-model family: adapter, encoder, LoRA, and why; or what to get.

Contents decide. Where released files share one layout (base and light, plus, plus-face and composition), the sha256
of known files decides; of files that are not known, the words in their names, and the reason says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..ipadapter_core.families.table import family_named
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.variants import by_name
from .catalog import BY_SHA256, CATALOG, encoder_file, families_for, files_for, of_layout, row
from .encoders import EncoderFacts
from .index import Entry
from .inspection import Found
from .released import Intent, Kind, KnownFile

Sha256 = Callable[[Entry], str]
# Where the loaders look.
_FOLDERS = {Found.ADAPTER: "ipadapter", Found.ENCODER: "clip_vision", Found.LORA: "loras"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """encoder: None where the adapter reads none. lora: None where none is needed, or the adapter brings its own.

    variant: of the adapter as known by its hash or name, for `detect`. faces: name of the face model it was trained
    with, '' for none.
    """

    adapter: Entry
    encoder: Entry | None
    lora: Entry | None
    variant: str
    faces: str
    reason: str


@dataclass(frozen=True)
class Missing:
    """What to get before the goal can be served; none where no released file serves it. text: says all of it."""

    files: tuple[KnownFile, ...]
    text: str


def choose(
    entries: Sequence[Entry],
    family: str,
    intent: Intent,
    sha256: Sha256,
    face_models: Collection[str] | None = None,
    variants: Collection[str] = (),
    needs_lora: bool = True,
) -> Choice | Missing:
    """The files of `entries` that serve `intent` on `family` ('SD1.5', 'SDXL', 'Kolors').

    sha256: as Index.sha256; called only where contents leave a doubt. face_models: names of those installed, None if
    that is not to be checked. variants: the only ones that will do, where the intent has several. needs_lora: whether
    a missing LoRA counts.
    """
    row = family_named(family)
    family = row.adapters_of if row else family
    goals = [known for known in files_for(intent, family) if not variants or known.variant in variants]
    entries = [entry for entry in entries if in_place(entry)]
    if not goals:
        return _no_such_goal(family, intent)
    picked = _adapter(entries, goals, sha256)
    if picked is None:
        return _missing((goals[0], *_beside(entries, goals[0], face_models)), family, intent, entries)
    adapter, known, why = picked
    encoder, lora = _encoder_for(entries, known), _lora(entries, adapter, known, sha256)
    faces = known.faces.removesuffix(".zip")
    has_lora = bool(lora) or _brings_lora(adapter) or not needs_lora
    lacking = _beside(entries, known, face_models, has_lora)
    if lacking:
        return _missing(lacking, family, intent, entries, adapter)
    parts = [why]
    parts += [f"{encoder.name} is {known.encoder}"] if encoder else ["no encoder is needed"]
    if lora:
        parts.append(f"{lora.name} is its LoRA")
    elif _brings_lora(adapter):
        parts.append("its LoRA is in the file")
    return Choice(adapter, encoder, lora, known.variant, faces, "; ".join(parts))


# --- adapter -----------------------------------------------------------------------------------------------------


def _adapter(
    entries: Sequence[Entry], goals: Sequence[KnownFile], sha256: Sha256
) -> tuple[Entry, KnownFile, str] | None:
    """By layout where that is enough, else by sha256, else by name."""
    alike = [(entry, goal) for goal in goals for entry in entries if goal in alike_of(entry)]
    for entry, goal in alike:
        if _tells_itself(entry, goal):
            return entry, goal, f"{entry.name} is {_what(goal)} by its contents"
    known = {entry.path: identify(entry, alike_of(entry), sha256) for entry, _ in alike}
    for entry, goal in alike:
        if known[entry.path] is goal:
            return entry, goal, f"{entry.name} is {goal.name} by its sha256"
    for entry, goal in alike:
        if known[entry.path] is None and named(entry, alike_of(entry)) is goal:
            why = (
                f"{entry.name} is taken for {_what(goal)} by its name, since files of this layout look alike"
            )
            return entry, goal, why
    return None


def candidates(entries: Sequence[Entry], intent: Intent | None) -> list[Entry]:
    """Files that may serve a goal on any family: adapters, their encoders and their LoRAs. None: any goal."""
    goals = [known for known in CATALOG if known.intent and intent in (None, known.intent)]
    names = {known.lora for known in goals if known.lora}
    encoders = {known.encoder for known in goals}
    wanted = {*goals, *map(row, names), *filter(None, map(encoder_file, encoders))}
    return [
        e
        for e in entries
        if in_place(e) and (wanted.intersection(alike_of(e)) or _named_lora(e, bool(names)))
    ]


def _named_lora(entry: Entry, wanted: bool) -> bool:
    """Older presets take a LoRA by its name alone."""
    return wanted and entry.finding.kind is Found.LORA and "faceid" in entry.name.lower()


def in_place(entry: Entry) -> bool:
    """Whether the file lies in a folder where the loaders look for its kind."""
    return entry.folder == _FOLDERS.get(entry.finding.kind)


def alike_of(entry: Entry) -> tuple[KnownFile, ...]:
    """Released files that have the keys and shapes of this one."""
    adapter, lora, encoder = entry.finding.adapter, entry.finding.lora, entry.finding.encoder
    if adapter:
        return of_layout(adapter.twins, adapter.family, adapter.encoder)
    if lora and lora.face:
        return tuple(known for known in CATALOG if known.kind is Kind.LORA and known.family == lora.family)
    if encoder:
        return tuple(
            known for known in CATALOG if known.kind is Kind.ENCODER and known.encoder == encoder.name
        )
    return ()


def _tells_itself(entry: Entry, goal: KnownFile) -> bool:
    facts = entry.finding.adapter
    return (
        bool(facts) and len(facts.twins) == 1 and {known.intent for known in alike_of(entry)} == {goal.intent}
    )


def identify(entry: Entry, alike: Sequence[KnownFile], sha256: Sha256) -> KnownFile | None:
    """Which released file this is, by sha256. It is not hashed where its size rules all of them out."""
    if not any(known.sha256 and _of_size(entry, known) for known in alike):
        return None
    return BY_SHA256.get(sha256(entry))


def _of_size(entry: Entry, known: KnownFile) -> bool:
    if known.size:
        return entry.size == known.size
    return abs(entry.size / 1e6 - known.about) < 0.02 * known.about


def named(entry: Entry, alike: Sequence[KnownFile]) -> KnownFile | None:
    """Which of released files that look alike the name tells; without a word of any, the plain or the likelier one."""
    name = entry.path.name.lower()
    words = {known.name: sum(word in name for word in known.words) for known in alike}
    told = [known for known in alike if words[known.name]]
    if told:
        return max(told, key=lambda known: (words[known.name], -len(known.words)))
    plain = [known for known in alike if not known.words]
    facts = entry.finding.adapter
    if facts and not plain and {known.variant for known in alike} >= set(facts.twins):
        plain = [known for known in alike if known.variant == facts.variant]
    return plain[0] if plain else None


def variant_of(entry: Entry, sha256: Sha256) -> Variant | None:
    """Which variant an adapter is, where its keys leave it open: by sha256, else by its name, which the log tells.

    None where the keys tell, or the file is no adapter.
    """
    facts = entry.finding.adapter
    if facts is None or len(facts.twins) == 1:
        return None
    known = identify(entry, alike_of(entry), sha256)
    if known is not None:
        return Variant(known.variant)
    told = by_name(tuple(Variant(twin) for twin in facts.twins), entry.name)
    why = "by its name" if told else "as the likelier one"
    variant = told or Variant(facts.variant)
    _log.info(
        "Image Prompt: %s is taken for %s %s: its tensors are those of %s, and its sha256 is not known.",
        entry.name, variant.value, why, " or ".join(facts.twins),
    )  # fmt: skip
    return variant


def _what(known: KnownFile) -> str:
    intent = known.intent.value if known.intent else known.kind.value
    return f"the {intent} adapter for {known.family}"


# --- what belongs with it ----------------------------------------------------------------------------------------


def find_encoder(entries: Sequence[Entry], encoder: str, embeds: bool) -> Entry | None:
    """An installed encoder of this name, by its widths; of several, the usual size and the released file first.

    embeds: whether its image_embeds are read, which some files lack.
    """
    released = encoder_file(encoder)
    fits = [
        (facts.name != encoder, released is None or entry.size != released.size, entry.name, entry)
        for entry in entries
        if (facts := entry.finding.encoder)
        and in_place(entry)
        and _is(facts, encoder)
        and (facts.projection or not embeds)
    ]
    return min(fits, key=lambda fit: fit[:3])[3] if fits else None


def _is(facts: EncoderFacts, encoder: str) -> bool:
    return facts.name == encoder or facts.name.startswith(f"{encoder}-")  # another image size


def _encoder_for(entries: Sequence[Entry], known: KnownFile) -> Entry | None:
    return find_encoder(entries, known.encoder, known.variant == Variant.BASE.value)


def _brings_lora(entry: Entry) -> bool:
    return bool(entry.finding.adapter and entry.finding.adapter.lora)


def _lora(entries: Sequence[Entry], adapter: Entry, known: KnownFile, sha256: Sha256) -> Entry | None:
    """The separate LoRA of an adapter that has none inside: by sha256, else by name among those shaped as it."""
    if not known.lora or _brings_lora(adapter):
        return None
    wanted = row(known.lora)
    shaped = [entry for entry in entries if entry.finding.lora and wanted in alike_of(entry)]
    known_as = {entry.path: identify(entry, alike_of(entry), sha256) for entry in shaped}
    by_hash = [entry for entry in shaped if known_as[entry.path] is wanted]
    by_words = [e for e in shaped if known_as[e.path] is None and named(e, alike_of(e)) is wanted]
    return next(iter(by_hash + by_words), None)


def _beside(
    entries: Sequence[Entry],
    known: KnownFile,
    face_models: Collection[str] | None,
    has_lora: bool = True,
) -> tuple[KnownFile, ...]:
    """Released files that belong with this adapter and are not installed."""
    encoder = encoder_file(known.encoder)
    lacking = [encoder] if encoder and _encoder_for(entries, known) is None else []
    lacking += [] if has_lora or not known.lora else [row(known.lora)]
    if known.faces and face_models is not None and known.faces.removesuffix(".zip") not in face_models:
        lacking.append(row(known.faces))
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
    orders = "; ".join(f"{known.order}" for known in files)
    return Missing(tuple(files), f"for '{intent.value}' on {family} you need: {orders}.{have}{wrong}")


def _installed(entries: Sequence[Entry], family: str) -> str:
    there = [e.name for e in entries if (facts := e.finding.adapter) and facts.family == family]
    return f" Adapters for {family} found: {', '.join(there[:6]) or 'none'}."


def _wrong_encoders(entries: Sequence[Entry]) -> str:
    there = [f"{e.name} ({facts.name})" for e in entries if (facts := e.finding.encoder)]
    return (
        f" Encoders found, none of which fits: {', '.join(there[:4])}." if there else " No encoder was found."
    )
