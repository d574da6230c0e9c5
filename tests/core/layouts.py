"""Key -> shape tables of the released SD1.5 and SDXL adapters, full size, and what each one must be detected as."""

from __future__ import annotations

from dataclasses import dataclass

from image_prompt.ipadapter_core.variants import Feature, Unconditional, Variant

Shape = tuple[int, ...]
Table = dict[str, Shape]

# Inner widths of the cross-attentions in checkpoint order: down, up, middle.
SD15 = (320,) * 2 + (640,) * 2 + (1280,) * 5 + (640,) * 3 + (320,) * 3 + (1280,)
SDXL = (640,) * 4 + (1280,) * 20 + (1280,) * 30 + (640,) * 6 + (1280,) * 10


def _norm(prefix: str, width: int) -> Table:
    return {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}


def _linear(prefix: str, rows: int, columns: int) -> Table:
    return {f"{prefix}.weight": (rows, columns), f"{prefix}.bias": (rows,)}


def base(feature: int, context: int, tokens: int = 4) -> Table:
    """ImageProjModel of ip_adapter.py."""
    return _linear("image_proj.proj", tokens * context, feature) | _norm("image_proj.norm", context)


def full(feature: int, context: int) -> Table:
    """MLPProjModel of ip_adapter.py."""
    hidden = _linear("image_proj.proj.0", feature, feature)
    return hidden | _linear("image_proj.proj.2", context, feature) | _norm("image_proj.proj.3", context)


def plus(
    feature: int, context: int, width: int, heads: int, tokens: int = 16, depth: int = 4, dim_head: int = 64
) -> Table:
    """Resampler of resampler.py."""
    table: Table = {"image_proj.latents": (1, tokens, width)}
    table |= _linear("image_proj.proj_in", width, feature)
    table |= _linear("image_proj.proj_out", context, width) | _norm("image_proj.norm_out", context)
    inner = heads * dim_head
    for n in range(depth):
        attention, ff = f"image_proj.layers.{n}.0", f"image_proj.layers.{n}.1"
        table |= _norm(f"{attention}.norm1", width) | _norm(f"{attention}.norm2", width)
        table |= {f"{attention}.to_q.weight": (inner, width), f"{attention}.to_kv.weight": (2 * inner, width)}
        table |= {f"{attention}.to_out.weight": (width, inner)} | _norm(f"{ff}.0", width)
        table |= {f"{ff}.1.weight": (4 * width, width), f"{ff}.3.weight": (width, 4 * width)}
    return table


def keys_values(widths: tuple[int, ...], context: int) -> Table:
    """K'/V' matrices: attn1 has the even numbers of diffusers' attn_processors, attn2 the odd ones."""
    return {
        f"ip_adapter.{2 * n + 1}.to_{kind}_ip.weight": (width, context)
        for n, width in enumerate(widths)
        for kind in "kv"
    }


@dataclass(frozen=True)
class Family:
    name: str
    context: int
    widths: tuple[int, ...]
    resampler_width: int
    resampler_heads: int


@dataclass(frozen=True)
class Kind:
    """What the network between encoder and tokens decides."""

    variant: Variant
    feature: Feature
    unconditional: Unconditional
    tokens: int | None


_SD15 = Family("SD1.5", 768, SD15, 768, 12)
_SDXL = Family("SDXL", 2048, SDXL, 1280, 20)
_BASE = Kind(Variant.BASE, Feature.IMAGE_EMBEDS, Unconditional.ZERO_FEATURES, 4)
_PLUS = Kind(Variant.PLUS, Feature.PENULTIMATE, Unconditional.ZERO_PIXELS, 16)
_FULL = Kind(Variant.FULL, Feature.PENULTIMATE, Unconditional.ZERO_PIXELS, None)


@dataclass(frozen=True)
class Layout:
    """One released file. parameters: of the projection, as counted in facts/paper.md 1.4 from the reference code."""

    file: str
    source: str
    family: Family
    kind: Kind
    encoder: str
    feature_width: int
    parameters: int

    @property
    def image_proj(self) -> Table:
        family = self.family
        if self.kind is _BASE:
            return base(self.feature_width, family.context)
        if self.kind is _FULL:
            return full(self.feature_width, family.context)
        return plus(self.feature_width, family.context, family.resampler_width, family.resampler_heads)

    @property
    def table(self) -> Table:
        return self.image_proj | keys_values(self.family.widths, self.family.context)


_H94 = "huggingface.co/h94/IP-Adapter/tree/main/models"
_H94_XL = "huggingface.co/h94/IP-Adapter/tree/main/sdxl_models"
_OSTRIS = "huggingface.co/ostris/ip-composition-adapter"
_H, _G = "CLIP ViT-H/14", "CLIP ViT-bigG/14"

LAYOUTS = (
    Layout("ip-adapter_sd15", _H94, _SD15, _BASE, _H, 1024, 3_150_336),
    Layout("ip-adapter_sd15_light", _H94, _SD15, _BASE, _H, 1024, 3_150_336),
    Layout("ip-adapter_sd15_vit-G", _H94, _SD15, _BASE, _G, 1280, 3_936_768),
    Layout("ip-adapter-plus_sd15", _H94, _SD15, _PLUS, _H, 1280, 29_918_208),
    Layout("ip-adapter-plus-face_sd15", _H94, _SD15, _PLUS, _H, 1280, 29_918_208),
    Layout("ip-adapter-full-face_sd15", _H94, _SD15, _FULL, _H, 1280, 2_625_024),
    Layout("ip-adapter_sdxl", _H94_XL, _SDXL, _BASE, _G, 1280, 10_498_048),
    Layout("ip-adapter_sdxl_vit-h", _H94_XL, _SDXL, _BASE, _H, 1024, 8_400_896),
    Layout("ip-adapter-plus_sdxl_vit-h", _H94_XL, _SDXL, _PLUS, _H, 1280, 82_961_664),
    Layout("ip-adapter-plus-face_sdxl_vit-h", _H94_XL, _SDXL, _PLUS, _H, 1280, 82_961_664),
    Layout("ip_plus_composition_sd15", _OSTRIS, _SD15, _PLUS, _H, 1280, 29_918_208),
    Layout("ip_plus_composition_sdxl", _OSTRIS, _SDXL, _PLUS, _H, 1280, 82_961_664),
)
KEYS_VALUES_PARAMETERS = {"SD1.5": 19_169_280, "SDXL": 340_787_200}
