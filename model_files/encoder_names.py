"""Which installed encoder stands in for one that is named and not installed: by its name, or as the adapters need it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath

from ..ipadapter_core.spec import Feature
from .catalog import L336, SIGLIP, G, H, L, encoder_file, file_named
from .choice import find_encoder
from .identification import in_expected_folder
from .index import Entry
from .nearest import match_name, nearest
from .released import Kind

# What public graphs call encoders, by a part of the path in small letters; the first match wins.
_NAME_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), encoder)
    for pattern, encoder in (
        (r"sigc?lip(?!2|.*512)", SIGLIP),
        (r"vit[-_ ]?(big[-_ ]?)?g\b|bigg|39b[-_]b160k|vit[-_ ]?g[-_ ]?14|clip[-_]?vision[-_]?g\b", G),
        (r"vit[-_ ]?h(uge)?\b|vit[-_ ]?h[-_ ]?14|s32b[-_]b79k|clip[-_]?vision[-_]?h\b|clip[-_]vit[-_]h", H),
        (r"(vit[-_ ]?l(arge)?|clip[-_]?l).*336", L336),
        (r"vit[-_ ]?l(arge)?\b|vit[-_ ]?l(arge)?[-_ ]?(patch)?14|clip[-_]?vision[-_]?l\b", L),
        (r"sd[-_ ]?xl.*(model|encoder)|encoder.*sd[-_ ]?xl", G),
        (r"sd[-_ ]?(v?1[-_.]?5).*(model|encoder)|encoder.*sd[-_ ]?(v?1[-_.]?5)", H),
    )
)


@dataclass(frozen=True)
class EncoderNeed:
    """encoders: names of those that the adapters read, empty where unknown. reads: what they read of them."""

    encoders: frozenset[str] = frozenset()
    reads: frozenset[Feature] = frozenset()


def encoder_by_name(name: str) -> str:
    """Which encoder a file of this name is, '' where the name does not say."""
    known = file_named(name)
    if known is not None:
        return known.encoder if known.kind is Kind.ENCODER else ""
    path = PureWindowsPath(name.strip()).as_posix().lower().replace(".safetensors", "").replace(".bin", "")
    return next((encoder for pattern, encoder in _NAME_PATTERNS if pattern.search(path)), "")


def encoder_for(wanted: str, need: EncoderNeed, entries: Sequence[Entry]) -> tuple[Entry | None, str]:
    """(the installed file that stands in for `wanted`, a line that says so), or (None, what to do).

    A file is taken only if it is by its contents the encoder that the name means and the adapters read.
    """
    entries = [entry for entry in entries if in_expected_folder(entry) and entry.info.encoder]
    meant = encoder_by_name(wanted)
    asked = need.encoders or frozenset(filter(None, (meant,)))
    by_name = match_name(wanted, [entry.name for entry in entries])
    if meant and need.encoders and meant not in need.encoders:
        return None, _wrong_encoder(wanted, meant, need, entries)
    for entry in entries:
        if entry.name == by_name and (not asked or any(_fits(entry, kind, need) for kind in asked)):
            return entry, f"CLIP vision file '{wanted}' is {entry.name} here."
    kind = meant or (next(iter(need.encoders)) if len(need.encoders) == 1 else "")
    found = find_encoder(entries, kind, need.reads) if kind else None
    if found is not None:
        text = f"CLIP vision file '{wanted}' is not installed; {found.name} is used, which is {kind} too."
        return found, text
    return None, _not_installed(wanted, asked, entries)


def _fits(entry: Entry, kind: str, need: EncoderNeed) -> bool:
    return find_encoder([entry], kind, need.reads) is not None


def _wrong_encoder(wanted: str, meant: str, need: EncoderNeed, entries: Sequence[Entry]) -> str:
    kinds = " or ".join(sorted(need.encoders))
    fits = [
        found.name for kind in sorted(need.encoders) if (found := find_encoder(entries, kind, need.reads))
    ]
    return (
        f"CLIP vision file '{wanted}' is not installed. By its name it is {meant}, but the adapter reads {kinds}: "
        + (
            f"pick {' or '.join(fits)}."
            if fits
            else f"{_download_hints(need.encoders)} {_installed(wanted, entries)}"
        )
    )


def _not_installed(wanted: str, asked: frozenset[str], entries: Sequence[Entry]) -> str:
    start = f"CLIP vision file '{wanted}' is not installed."
    if not asked:
        unknown = "Its name does not say which encoder it is"
        return f"{start} {unknown}; pick the one that your adapter reads. {_installed(wanted, entries)}"
    return f"{start} {' or '.join(sorted(asked))} is needed. {_download_hints(asked)} {_installed(wanted, entries)}"


def _download_hints(encoders: frozenset[str]) -> str:
    known = [file.download_hint for encoder in sorted(encoders) if (file := encoder_file(encoder))]
    return f"Get {' or '.join(known)}." if known else "Get it from where the adapter is from."


def _installed(wanted: str, entries: Sequence[Entry]) -> str:
    kinds = {entry.name: entry.info.encoder.name for entry in entries if entry.info.encoder}
    found = ", ".join(f"{name} ({kinds[name]})" for name in nearest(wanted, list(kinds)))
    return f"Encoders found: {found or 'none'}."
