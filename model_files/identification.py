"""Which released file an installed one is: by its layout, by its sha256, else by the words in its name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..ipadapter_core.spec import Variant
from ..ipadapter_core.variants import variant_by_name
from .catalog import BY_SHA256, CATALOG, of_layout
from .index import Entry
from .inspection import FileKind
from .released import HASH_PREFIX, Kind, KnownFile

Sha256 = Callable[[Entry], str]
# The folder in which the loaders look for each kind.
_FOLDERS = {FileKind.ADAPTER: "ipadapter", FileKind.ENCODER: "clip_vision", FileKind.LORA: "loras"}
_log = logging.getLogger(__name__)


def in_expected_folder(entry: Entry) -> bool:
    """Whether the file lies in a folder where the loaders look for its kind."""
    return entry.folder == _FOLDERS.get(entry.info.kind)


def look_alikes(entry: Entry) -> tuple[KnownFile, ...]:
    """Released files with the keys and shapes of this one."""
    adapter, lora, encoder = entry.info.adapter, entry.info.lora, entry.info.encoder
    if adapter:
        return of_layout(adapter.variants, adapter.family, adapter.encoder, adapter.tokens)
    if lora and lora.face:
        return tuple(known for known in CATALOG if known.kind is Kind.LORA and known.family == lora.family)
    if encoder:
        return tuple(
            known for known in CATALOG if known.kind is Kind.ENCODER and known.encoder == encoder.name
        )
    return ()


def identify(entry: Entry, alike: Sequence[KnownFile], sha256: Sha256) -> KnownFile | None:
    """Which released file this is, by sha256; None if it is none. alike: its look-alikes.

    It is not hashed where its size rules all of them out.
    """
    if not any(known.sha256 and _has_size_of(entry, known) for known in alike):
        return None
    return BY_SHA256.get(sha256(entry)[:HASH_PREFIX])


def _has_size_of(entry: Entry, known: KnownFile) -> bool:
    if known.size:
        return entry.size == known.size
    return abs(entry.size / 1e6 - known.published_mb) < 0.02 * known.published_mb


def guess_by_name(entry: Entry, alike: Sequence[KnownFile]) -> KnownFile | None:
    """Which of the look-alikes the file's name hints at; without a hint the one that needs none, or the likelier one."""
    name = entry.path.name.lower()
    hits = {known.name: sum(hint in name for hint in known.name_hints) for known in alike}
    hinted = [known for known in alike if hits[known.name]]
    if hinted:
        return max(hinted, key=lambda known: (hits[known.name], -len(known.name_hints)))
    unhinted = [known for known in alike if not known.name_hints]
    facts = entry.info.adapter
    if facts and not unhinted and {known.variant for known in alike} >= set(facts.variants):
        unhinted = [known for known in alike if known.variant == facts.variant]
    return unhinted[0] if unhinted else None


def variant_of(entry: Entry, sha256: Sha256) -> Variant | None:
    """Which variant an adapter is, where its keys allow several: by sha256, else by its name, with a line in the log.

    None where its keys allow one only, or the file is no adapter.
    """
    facts = entry.info.adapter
    if facts is None or len(facts.variants) == 1:
        return None
    known = identify(entry, look_alikes(entry), sha256)
    if known is not None:
        return Variant(known.variant)
    hinted = variant_by_name(tuple(Variant(variant) for variant in facts.variants), entry.name)
    why = "by its name" if hinted else "as the likelier one"
    variant = hinted or Variant(facts.variant)
    _log.info(
        "Image Prompt: %s is taken for %s %s: its tensors are those of %s, and its sha256 is not known.",
        entry.name, variant.value, why, " or ".join(facts.variants),
    )  # fmt: skip
    return variant
