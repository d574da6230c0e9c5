"""What an adapter is, read from key names and shapes alone: one frozen spec, one ordered table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import SettingError, UnknownAdapterError, shown
from .families.family import Architecture
from .families.flux import DOUBLE, FLUX, flux_of_pairs
from .families.lumina import NEXT_DIT, lumina_of_pairs
from .families.qwen import QWEN, qwen_of_pairs
from .families.sd3 import SD3, sd3_of_pairs
from .families.table import ARCHITECTURES, family_of_shape
from .families.unet import KOLORS
from .projections.base import Projection, Shape
from .projections.faceid import (
    FaceIDPlusProjection,
    FaceIDPlusV2Projection,
    FaceIDProjection,
    IdentityResampler,
    KolorsFaceIDProjection,
)
from .projections.linear import FullProjection, ImageProjection
from .projections.pooled import PooledProjection
from .projections.resampler import Resampler
from .projections.timed import TimeResampler
from .spec import UNET_ENTRY, AdapterSpec, Entry, Feature, Identity, Target, Unconditional, Variant

Shapes = Mapping[str, Shape]

_MOST_TENSORS, _MOST_LAYERS = 10_000, 100
# Of ChatGLM3, before the UNet's encoder_hid_proj.
_KOLORS_TEXT_WIDTH = 4096
_KOLORS_ENCODER_SIZE = 336
# Of an ArcFace embedding.
_FACE_WIDTH = 512


def _always(_: Shapes) -> bool:
    return True


def _reads_a_face(shapes: Shapes) -> bool:
    return shapes["proj_in.weight"][-1:] == (_FACE_WIDTH,)


def _kolors_plus(shapes: Shapes) -> bool:
    return shapes["proj_in.weight"] == (2048, 1024)


def _kolors_face(shapes: Shapes) -> bool:
    return shapes["norm.weight"] == (_KOLORS_TEXT_WIDTH,)


def _many_tokens(shapes: Shapes) -> bool:
    rows, width = shapes["proj.2.weight"][:1], shapes["norm.weight"][:1]
    return bool(rows and width) and rows[0] > 4 * width[0]


@dataclass(frozen=True)
class _Row:
    """One adapter layout: the image_proj keys that identify it, a test of their shapes, and what follows.

    name_hints: parts of a file name that distinguish it from layouts of the same keys and shapes.
    """

    variant: Variant
    keys: frozenset[str]
    projection: type[Projection]
    feature: Feature
    unconditional: Unconditional
    identity: Identity = Identity.NONE
    when: Callable[[Shapes], bool] = _always
    family: str | None = None
    encoder_size: int | None = None
    name_hints: tuple[str, ...] = ()
    entry: Entry = UNET_ENTRY


_RESAMPLER = frozenset({"latents", "proj_in.weight", "proj_out.weight", "norm_out.weight"})
_TIMED = _RESAMPLER | {"time_embedding.linear_1.weight", "time_embedding.linear_2.weight"}
_FULL = frozenset({"proj.0.weight", "proj.2.weight", "proj.3.weight"})
_LINEAR = frozenset({"proj.weight", "norm.weight"})
_MLP = frozenset({"proj.0.weight", "proj.2.weight", "norm.weight"})
_MLP_GRID = _MLP | {"perceiver_resampler.proj_in.weight", "perceiver_resampler.proj_out.weight"}

_SITE = re.compile(r"([0-9]{1,6})\.to_[kv]_ip\.")
# Transformers for which nobody released an adapter: the layout is this pack's own, and says by its keys what it is for.
_OPEN = {architecture.file_prefix: architecture for architecture in ARCHITECTURES if architecture.file_prefix}
_XLABS = Entry(FLUX.name, (DOUBLE,), Target.BLOCK)
_INSTANTX = Entry(FLUX.name, normed_keys=True)
_INSTANTX_SD3 = Entry(SD3.name, timed=True)
_FAMILY_OF_PAIRS = {
    FLUX.name: flux_of_pairs,
    SD3.name: sd3_of_pairs,
    QWEN.name: qwen_of_pairs,
    NEXT_DIT.name: lumina_of_pairs,
}

# What is read, what stands for nothing, and which face embedding.
_EMBEDS = (Feature.IMAGE_EMBEDS, Unconditional.ZERO_FEATURES, Identity.NONE)
_GRID = (Feature.PENULTIMATE, Unconditional.ZERO_PIXELS, Identity.NONE)
_FACE = (Feature.NONE, Unconditional.ZERO_FEATURES, Identity.NORMALISED)
_RAW_FACE = (Feature.NONE, Unconditional.ZERO_FEATURES, Identity.RAW)
_FACE_AND_GRID = (Feature.PENULTIMATE, Unconditional.ZERO_PIXELS, Identity.NORMALISED)

_BLACK = (Feature.IMAGE_EMBEDS, Unconditional.BLACK_PICTURE, Identity.NONE)
_ZERO_GRID = (Feature.PENULTIMATE, Unconditional.ZERO_FEATURES, Identity.NONE)
_POOLED = (Feature.POOLED, Unconditional.NOTHING, Identity.NONE)


def _rows_of_open(architecture: Architecture) -> tuple[_Row, ...]:
    """As for UNets: of the global embedding, and of the encoder's grid."""
    entry = Entry(architecture.name, normed_keys=True, prefix=architecture.file_prefix)
    return (
        _Row(Variant.PLUS, _RESAMPLER, Resampler, *_GRID, entry=entry),
        _Row(Variant.BASE, _LINEAR, ImageProjection, *_EMBEDS, entry=entry),
    )


# Most specific first. Of rows with equal keys and shapes the likelier comes first: only a hash, a setting or the name
# decides between them.
_TABLE: tuple[_Row, ...] = (
    _Row(
        Variant.FACEID_PORTRAIT_UNNORM,
        _RESAMPLER,
        IdentityResampler,
        *_RAW_FACE,
        _reads_a_face,
        name_hints=("unnorm",),
    ),
    _Row(
        Variant.INSTANTID,
        _RESAMPLER,
        IdentityResampler,
        *_RAW_FACE,
        _reads_a_face,
        name_hints=("instantid", "instant-id"),
    ),
    _Row(Variant.PLUS, _RESAMPLER, Resampler, *_GRID, _kolors_plus, KOLORS.name, _KOLORS_ENCODER_SIZE),
    _Row(Variant.PLUS, _RESAMPLER, Resampler, *_GRID),
    _Row(Variant.FULL, _FULL, FullProjection, *_GRID),
    _Row(
        Variant.FACEID_KOLORS,
        _MLP_GRID,
        KolorsFaceIDProjection,
        *_FACE_AND_GRID,
        _kolors_face,
        KOLORS.name,
        _KOLORS_ENCODER_SIZE,
    ),
    _Row(Variant.FACEID_PLUS_V2, _MLP_GRID, FaceIDPlusV2Projection, *_FACE_AND_GRID, name_hints=("v2",)),
    _Row(Variant.FACEID_PLUS, _MLP_GRID, FaceIDPlusProjection, *_FACE_AND_GRID, name_hints=("plus",)),
    _Row(Variant.FACEID_PORTRAIT, _MLP, FaceIDProjection, *_FACE, _many_tokens),
    _Row(Variant.FACEID, _MLP, FaceIDProjection, *_FACE),
    _Row(Variant.BASE, _LINEAR, ImageProjection, *_EMBEDS),
    _Row(Variant.XLABS, _LINEAR, ImageProjection, *_BLACK, entry=_XLABS),
    _Row(Variant.INSTANTX, _MLP, PooledProjection, *_POOLED, entry=_INSTANTX),
    _Row(Variant.INSTANTX, _TIMED, TimeResampler, *_ZERO_GRID, entry=_INSTANTX_SD3),
    *(row for each in _OPEN.values() for row in _rows_of_open(each)),
)

# Variants whose keys and shapes are those of another one too.
AMBIGUOUS = tuple(
    row.variant
    for row in _TABLE
    if row.name_hints and sum((row.keys, row.when) == (r.keys, r.when) for r in _TABLE) > 1
)

# Files of other methods that share the role names; each needs more than an IP-Adapter is.
_NOT_OURS: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"body.0.weight", "mapping_patch_0.0.weight"}),
        "a PuLID adapter: it reads an EVA-CLIP encoder and changes attention in its own way, which this pack does not "
        "do. Use a PuLID pack for it, or a FaceID adapter here.",
    ),
)


def detect(shapes: Shapes, name: str = "the adapter", variant: Variant | None = None) -> AdapterSpec:
    """The spec of an adapter from its role-prefixed key -> shape table.

    variant: which of `ambiguous_variants` it is; without it the likeliest. Raises UnknownAdapterError that names the missing
    or odd keys, and SettingError with the variants that the keys allow.
    """
    name = shown(name)
    _require_sizes(shapes, name)
    proj = _strip(shapes, "image_proj.")
    row = _chosen(_matches(proj, _architecture(shapes), name), variant, name)
    kv = _strip(shapes, f"ip_adapter.{row.entry.prefix}")
    site_keys, site_widths, context_width = _sites(kv, name)
    sizes = row.projection.sizes(proj, context_width, name)
    return AdapterSpec(
        variant=row.variant,
        feature=row.feature,
        identity=row.identity,
        unconditional=row.unconditional,
        **sizes._asdict(),
        context_width=context_width,
        site_widths=site_widths,
        site_keys=site_keys,
        projection=row.projection,
        family=row.family or _family(row.entry, context_width, len(site_widths)),
        encoder_size=row.encoder_size,
        lora=any("_lora." in key for key in kv),
        entry=row.entry,
        bias=f"{site_keys[0]}.to_k_ip.bias" in kv,
    )


def _family(entry: Entry, context_width: int, pairs: int) -> str:
    of_pairs = _FAMILY_OF_PAIRS.get(entry.architecture)
    return of_pairs(pairs) if of_pairs else family_of_shape(context_width, pairs).name


def _architecture(shapes: Shapes) -> str:
    """Of the model that an adapter is for: a UNet's sites have odd numbers, a transformer's blocks all from 0 on."""
    if any(key.startswith("ip_adapter.") and ".norm_ip.linear." in key for key in shapes):
        return SD3.name
    open_keys = (key.removeprefix("ip_adapter.") for key in shapes if key.endswith(".to_k_ip.weight"))
    prefix = next(iter(open_keys), "").partition(".")[0].rstrip("0123456789")
    if prefix in _OPEN:
        return _OPEN[prefix].name
    first = any(f"ip_adapter.0.to_k_ip.{part}" in shapes for part in ("weight", "bias"))
    return FLUX.name if first else UNET_ENTRY.architecture


def ambiguous_variants(shapes: Shapes, name: str = "the adapter") -> tuple[Variant, ...]:
    """The variants that these keys and shapes allow, the likeliest first; one where they decide."""
    proj, architecture = _strip(shapes, "image_proj."), _architecture(shapes)
    return tuple(row.variant for row in _matches(proj, architecture, shown(name)))


def feature_of(variant: Variant, architecture: str) -> Feature:
    """What adapters of this variant for models of this architecture read of their encoder."""
    rows = [row for row in _TABLE if row.variant is variant]
    return next((row.feature for row in rows if row.entry.architecture == architecture), rows[0].feature)


def variant_by_name(variants: tuple[Variant, ...], name: str) -> Variant | None:
    """Which of these variants a file name hints at; None if it hints at none."""
    rows = [row for row in _TABLE if row.variant in variants]
    return next((row.variant for row in rows if any(word in name.lower() for word in row.name_hints)), None)


def _require_sizes(shapes: Shapes, name: str) -> None:
    """Before anything is built of them: no side of 0, and no more parts than a UNet or a resampler can have."""
    empty = next((key for key, shape in shapes.items() if 0 in shape), None)
    if empty is not None:
        raise UnknownAdapterError(
            f"{name}: {shown(empty, 80)} is of shape {shapes[empty]}, which holds nothing. Download it again."
        )
    layers = {key.split(".layers.")[1].split(".")[0] for key in shapes if ".layers." in key}
    if len(shapes) > _MOST_TENSORS or len(layers) > _MOST_LAYERS:
        raise UnknownAdapterError(
            f"{name} holds {len(shapes):,} tensors, more than an IP-Adapter of any known model. Pick another file."
        )


def _strip(shapes: Shapes, prefix: str) -> dict[str, Shape]:
    return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}


def _matches(proj: Shapes, architecture: str, name: str) -> list[_Row]:
    """The first row that fits, and the others of the same keys and the same test of the shapes."""
    table = [row for row in _TABLE if row.entry.architecture == architecture]
    first = next((row for row in table if row.keys <= proj.keys() and row.when(proj)), None)
    if first is not None:
        return [row for row in table if row.keys == first.keys and row.when is first.when]
    for keys, what in _NOT_OURS:
        if keys <= proj.keys():
            raise UnknownAdapterError(f"{name} is {what}")
    partial = max(reversed(table), key=lambda row: len(row.keys & proj.keys()))
    missing = sorted(partial.keys - proj.keys())
    hint = (
        f" It looks like '{partial.variant.value}', but lacks {', '.join(missing)}."
        if len(missing) < len(partial.keys)
        else ""
    )
    keys = ", ".join(shown(key, 60) for key in sorted(proj)[:6])
    raise UnknownAdapterError(
        f"{name}: no known IP-Adapter has these image_proj keys: {keys or 'none'}.{hint} "
        f"Known layouts: {', '.join(dict.fromkeys(row.variant.value for row in _TABLE))}. "
        "The file may be damaged or newer than this pack."
    )


def _chosen(rows: list[_Row], variant: Variant | None, name: str) -> _Row:
    for row in rows:
        if variant in (None, row.variant):
            return row
    allowed = " or ".join(f"'{row.variant.value}'" for row in rows)
    raise SettingError(
        f"{name} cannot be '{variant.value if variant else ''}': its tensors are those of {allowed}. "
        "Leave the variant to the contents, or pick the file that you meant."
    )


def _sites(kv: Shapes, name: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Site numbers, K' widths and the context width. FaceID's LoRA tensors share the numbering and are passed over."""
    numbers = sorted({int(match[1]) for key in kv if (match := _SITE.match(key))})
    if not numbers:
        raise UnknownAdapterError(
            f"{name}: no 'N.to_k_ip.weight' under ip_adapter, so there is nothing to attend to. Download it again."
        )
    keys = [f"{n}.to_{w}_ip.weight" for n in numbers for w in "kv"]
    missing = [key for key in keys if key not in kv]
    if missing:
        raise UnknownAdapterError(
            f"{name}: incomplete, {len(missing)} tensors are missing: {', '.join(missing[:4])}. Download it again."
        )
    widths = {kv[key][1] for key in keys if len(kv[key]) == 2}
    pairs = [(n, kv[f"{n}.to_k_ip.weight"], kv[f"{n}.to_v_ip.weight"]) for n in numbers]
    uneven = [n for n, k, v in pairs if k != v or len(k) != 2]
    if len(widths) != 1 or uneven:
        raise UnknownAdapterError(
            f"{name}: the to_k_ip and to_v_ip matrices do not agree in shape (context widths {sorted(widths)}, "
            f"uneven sites {uneven[:4]}). The file is damaged or mixes two adapters; download it again."
        )
    return tuple(numbers), tuple(k[0] for _, k, _ in pairs), widths.pop()
