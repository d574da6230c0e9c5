"""What a model file is, read from its header alone: adapter, encoder, LoRA, saved prompt, other, or broken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ..ipadapter_core.checkpoint import named_shapes, read_outline, role_names
from ..ipadapter_core.errors import CheckpointError, MissingFileError, shown
from ..ipadapter_core.families.family import Family
from ..ipadapter_core.families.unet import SD2, SD15, SDXL
from ..ipadapter_core.files.header import header_digest
from ..ipadapter_core.files.stored import Outline
from ..ipadapter_core.foreign import foreign
from ..ipadapter_core.prompt_file import FORMAT, is_saved_prompt
from ..ipadapter_core.variants import ambiguous_variants, detect
from .encoders import EncoderFacts, encoder_facts, pooling_note

Shape = tuple[int, ...]
_log = logging.getLogger(__name__)


class FileKind(str, Enum):
    ADAPTER = "adapter"
    ENCODER = "clip vision"
    LORA = "lora"
    PROMPT = "saved prompt"
    OTHER = "other"
    BROKEN = "broken"


@dataclass(frozen=True)
class AdapterFacts:
    """Of an AdapterSpec what a choice needs. variants: all of these keys and shapes, the likeliest first."""

    variant: str
    variants: tuple[str, ...]
    family: str
    encoder: str
    feature: str
    feature_width: int
    tokens: int | None
    sites: int
    lora: bool


@dataclass(frozen=True)
class LoraFacts:
    """family: by the width of its text cross-attention, '' if it has none. face: whether it is shaped as FaceID's."""

    family: str
    rank: int
    modules: int
    face: bool


@dataclass(frozen=True)
class FileInfo:
    """What one file is. text: one line for people; of a broken file, why and what to do."""

    kind: FileKind
    text: str
    adapter: AdapterFacts | None = None
    encoder: EncoderFacts | None = None
    lora: LoraFacts | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FileInfo:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` did not write."""
        facts: dict[str, Any] = {key: data.get(key) for key in ("adapter", "encoder", "lora")}
        adapter, encoder, lora = facts.values()
        if adapter:
            # JSON has lists only, no tuples
            adapter = AdapterFacts(**adapter)
            adapter = replace(adapter, variants=tuple(adapter.variants))
        return FileInfo(
            FileKind(data["kind"]),
            str(data["text"]),
            adapter,
            EncoderFacts(**encoder) if encoder else None,
            LoraFacts(**lora) if lora else None,
        )


def inspect_file(path: str | Path) -> FileInfo:
    """What the file is. Never raises for what is in it: of a file that cannot be read, the text says why."""
    path = Path(path)
    try:
        outline = read_outline(path)
        return next(found for read in _READERS if (found := read(outline, path)))
    except (CheckpointError, MissingFileError) as error:
        return FileInfo(FileKind.BROKEN, str(error))
    # a mistake of ours; one file must not keep all others from being found
    except Exception:
        _log.warning("Image Prompt: %s could not be inspected", shown(path), exc_info=True)
        return FileInfo(
            FileKind.BROKEN, f"{shown(path.name)} could not be inspected; the log says why. Remove it."
        )


class Inspector:
    """`inspect_file` of many files: of those with the same header and size, as one tool writes them, the first is inspected.

    What it says of a file that is whole depends on neither its name nor its data.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], FileInfo] = {}

    def __call__(self, path: Path) -> FileInfo:
        try:
            digest = header_digest(path)
            key = None if digest is None else (digest, path.stat().st_size)
        except OSError:
            key = None
        if key is not None and (known := self._known.get(key)):
            return known
        found = inspect_file(path)
        if key is not None and found.kind is not FileKind.BROKEN:
            self._known[key] = found
        return found


def inspect_for_prompt(path: Path) -> FileInfo:
    """Whether the file is a saved prompt, and nothing else; for folders with thousands of other files."""
    return FileInfo(*((FileKind.PROMPT, "a saved prompt") if is_saved_prompt(path) else (FileKind.OTHER, "")))


# --- kinds -------------------------------------------------------------------------------------------------------


def _as_saved_prompt(outline: Outline, path: Path) -> FileInfo | None:
    note = outline.metadata
    if note.get("format") != FORMAT:
        return None
    notes = (note.get("adapter", "unknown adapter"), note.get("variant", "?"), note.get("family", "?"))
    made = ", ".join(shown(text, 60) for text in notes)
    return FileInfo(FileKind.PROMPT, f"an image prompt made with {made}")


def _as_adapter(outline: Outline, path: Path) -> FileInfo | None:
    names = role_names(outline.tensors)
    if not names:
        return None
    shapes = named_shapes(outline, names)
    spec = detect(shapes, path.name)
    facts = AdapterFacts(
        spec.variant.value,
        tuple(variant.value for variant in ambiguous_variants(shapes, path.name)),
        spec.family,
        spec.encoder,
        spec.feature.value,
        spec.feature_width,
        spec.tokens,
        len(spec.site_widths),
        spec.lora,
    )
    tokens = "one token for each of the encoder's" if spec.tokens is None else f"{spec.tokens} tokens"
    lora = ", with a LoRA inside" if spec.lora else ""
    text = f"{' or '.join(facts.variants)} adapter for {facts.family}, {facts.encoder}, {tokens}{lora}"
    return FileInfo(FileKind.ADAPTER, text, adapter=facts)


def _as_encoder(outline: Outline, path: Path) -> FileInfo | None:
    facts = encoder_facts(outline.shapes, path.name)
    if facts is None:
        return None
    projection = f", image_embeds of {facts.projection}" if facts.projection else ", no image_embeds"
    projection = pooling_note(facts) or projection
    whole = ", with its text model" if facts.text_model else ""
    text = f"{facts.name}: {facts.layers} blocks of width {facts.width}{projection}, {facts.image_size} pixels{whole}"
    return FileInfo(FileKind.ENCODER, text, encoder=facts)


_DOWN = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".lora.down.weight",
    "_lora.down.weight",
)
# FaceID's: rank 128 on q, k, v and out of both attentions of all 16 (SD1.5) or 70 (SDXL) blocks.
_FACE_RANK, _FACE_MODULES_EACH = 128, 8


def _as_lora(outline: Outline, path: Path) -> FileInfo | None:
    down = {key: shape for key, shape in outline.shapes.items() if key.endswith(_DOWN) and len(shape) >= 2}
    if not down:
        return None
    rank = max(shape[0] for shape in down.values())
    context = {shape[1] for key, shape in down.items() if "attn2" in key and "to_k" in key}
    base = _lora_family(context.pop()) if len(context) == 1 else None
    face = (
        rank == _FACE_RANK
        and base in (SD15, SDXL)
        and len(down) == _FACE_MODULES_EACH * base.site_count
        and all("attn" in key for key in down)
    )
    family = base.name if base else ""
    facts = LoraFacts(family, rank, len(down), face)
    text = f"LoRA of rank {rank} on {len(down)} layers{f' of {family}' if family else ''}"
    return FileInfo(FileKind.LORA, text + (", shaped as FaceID's" if face else ""), lora=facts)


def _lora_family(context_width: int) -> Family | None:
    """The usual family of this context width. A LoRA does not show whether it is of a pruned one or of Kolors."""
    usual = (SD15, SD2, SDXL)
    return next((family for family in usual if family.context_width == context_width), None)


# By a part of a key; the first match wins.
_MISPLACED: tuple[tuple[str, str], ...] = (
    ("model.diffusion_model.", "a checkpoint; it belongs in models/checkpoints"),
    ("controlnet_cond_embedding", "a ControlNet; it belongs in models/controlnet"),
    ("control_model.", "a ControlNet; it belongs in models/controlnet"),
    ("double_blocks.", "a Flux model; it belongs in models/diffusion_models"),
    ("text_model.encoder.", "a text encoder; it belongs in models/text_encoders"),
    ("decoder.conv_in.", "a VAE; it belongs in models/vae"),
)


def _as_foreign_adapter(outline: Outline, path: Path) -> FileInfo | None:
    what = foreign(outline.shapes)
    return FileInfo(FileKind.OTHER, what) if what else None


def _as_other(outline: Outline, path: Path) -> FileInfo:
    what = next((what for part, what in _MISPLACED if any(part in key for key in outline.shapes)), None)
    if what:
        return FileInfo(FileKind.OTHER, what)
    if not outline.shapes:
        return FileInfo(
            FileKind.BROKEN, f"{shown(path.name)} holds no tensors. Download it again, or remove it."
        )
    keys = ", ".join(shown(key, 60) for key in sorted(outline.shapes)[:3])
    return FileInfo(FileKind.OTHER, f"{len(outline.shapes)} tensors of no kind that is known here: {keys}")


_READERS: tuple[Callable[[Outline, Path], FileInfo | None], ...] = (
    _as_saved_prompt,
    _as_foreign_adapter,
    _as_adapter,
    _as_lora,
    _as_encoder,
    _as_other,
)
