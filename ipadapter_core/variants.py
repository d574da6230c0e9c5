"""What an adapter is, read from key names and shapes alone: one frozen spec, one ordered table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from .errors import UnknownAdapterError
from .projections import FullProjection, ImageProjection, Projection, Resampler

Shape = tuple[int, ...]


class Variant(str, Enum):
    BASE = "base"
    PLUS = "plus"
    FULL = "full"


class Feature(str, Enum):
    """Which output of the CLIP vision encoder the projection reads."""

    IMAGE_EMBEDS = "image_embeds"  # (n, width), projected global embedding
    PENULTIMATE = "penultimate_hidden_states"  # (n, 1 + patches, width), last but one layer


class Unconditional(str, Enum):
    """What stands for 'no image' (reference: get_image_embeds of ip_adapter.py)."""

    ZERO_FEATURES = "zero features"
    ZERO_PIXELS = "features of zero pixels after normalisation"


@dataclass(frozen=True)
class AdapterSpec:
    """Everything that is decided about an adapter, decided once.

    feature_width: width of the encoder feature. tokens: image tokens per picture, None if one for each encoder token.
    token_width: cross-attention context width (768 SD1.5, 2048 SDXL). site_widths: rows of W'k per site, in
    checkpoint order (down, up, middle). site_keys: the numbers in the file's keys, same order.
    """

    variant: Variant
    feature: Feature
    unconditional: Unconditional
    feature_width: int
    tokens: int | None
    token_width: int
    site_widths: tuple[int, ...]
    site_keys: tuple[int, ...]
    projection: type[Projection]

    @property
    def encoder(self) -> str:
        """The public CLIP vision model that gives this feature width."""
        return ENCODERS.get((self.feature, self.feature_width), "an unusual CLIP vision encoder")

    @property
    def family(self) -> str:
        """The base-model family that the sites and the token width belong to."""
        return family_name(self.token_width, len(self.site_widths))


ENCODERS: dict[tuple[Feature, int], str] = {
    (Feature.IMAGE_EMBEDS, 768): "CLIP ViT-L/14",
    (Feature.IMAGE_EMBEDS, 1024): "CLIP ViT-H/14",
    (Feature.IMAGE_EMBEDS, 1280): "CLIP ViT-bigG/14",
    (Feature.PENULTIMATE, 1024): "CLIP ViT-L/14",
    (Feature.PENULTIMATE, 1280): "CLIP ViT-H/14",
    (Feature.PENULTIMATE, 1664): "CLIP ViT-bigG/14",
}

_FAMILIES: dict[tuple[int, int], str] = {
    (768, 16): "SD1.5",
    (1024, 16): "SD2.x",
    (2048, 70): "SDXL",
}


def family_name(context_width: int, site_count: int) -> str:
    """Name of a UNet family by cross-attention context width and number of cross-attentions."""
    known = _FAMILIES.get((context_width, site_count))
    return known or f"UNet with {site_count} cross-attentions of context width {context_width}"


@dataclass(frozen=True)
class _Row:
    """One adapter layout: the image_proj keys that tell it, and what follows from them."""

    variant: Variant
    keys: frozenset[str]
    projection: type[Projection]
    feature: Feature
    unconditional: Unconditional


# Most specific first: 'latents' is in no other layout, 'proj.3' only in the MLP of full-face.
_TABLE: tuple[_Row, ...] = (
    _Row(
        Variant.PLUS,
        frozenset({"latents", "proj_in.weight", "proj_out.weight", "norm_out.weight"}),
        Resampler,
        Feature.PENULTIMATE,
        Unconditional.ZERO_PIXELS,
    ),
    _Row(
        Variant.FULL,
        frozenset({"proj.0.weight", "proj.2.weight", "proj.3.weight"}),
        FullProjection,
        Feature.PENULTIMATE,
        Unconditional.ZERO_PIXELS,
    ),
    _Row(
        Variant.BASE,
        frozenset({"proj.weight", "norm.weight"}),
        ImageProjection,
        Feature.IMAGE_EMBEDS,
        Unconditional.ZERO_FEATURES,
    ),
)


def detect(shapes: Mapping[str, Shape], name: str = "the adapter") -> AdapterSpec:
    """The spec of an adapter from its role-prefixed key -> shape table.

    Raises UnknownAdapterError that names the missing or odd keys.
    """
    proj = _strip(shapes, "image_proj.")
    row = _match(proj, name)
    site_keys, site_widths, token_width = _sites(_strip(shapes, "ip_adapter."), name)
    sizes = row.projection.sizes(proj, token_width, name)
    return AdapterSpec(
        variant=row.variant,
        feature=row.feature,
        unconditional=row.unconditional,
        feature_width=sizes.feature_width,
        tokens=sizes.tokens,
        token_width=token_width,
        site_widths=site_widths,
        site_keys=site_keys,
        projection=row.projection,
    )


def _strip(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}


def _match(proj: Mapping[str, Shape], name: str) -> _Row:
    for row in _TABLE:
        if row.keys <= proj.keys():
            return row
    partial = max(_TABLE, key=lambda row: len(row.keys & proj.keys()))
    missing = sorted(partial.keys - proj.keys())
    hint = (
        f" It looks like '{partial.variant.value}', but lacks {', '.join(missing)}."
        if len(missing) < len(partial.keys)
        else ""
    )
    raise UnknownAdapterError(
        f"{name}: no known IP-Adapter has these image_proj keys: {', '.join(sorted(proj)[:6]) or 'none'}.{hint} "
        f"Known layouts: {', '.join(row.variant.value for row in _TABLE)}. The file may be damaged or newer than this pack."
    )


def _sites(kv: Mapping[str, Shape], name: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Site numbers, K' widths and the token width. FaceID's LoRA tensors share the numbering and are passed over."""
    numbers = sorted({int(key.split(".")[0]) for key in kv if key.split(".")[0].isdigit() and "_ip." in key})
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
