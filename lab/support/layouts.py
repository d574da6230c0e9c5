"""Key -> shape tables of the released adapters for UNets, full size, and what each one must be detected as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from image_prompt.ipadapter_core.spec import Feature, Identity, Unconditional, Variant

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


def perceiver(
    prefix: str,
    feature: int,
    context: int,
    width: int,
    heads: int,
    depth: int = 4,
    dim_head: int = 64,
    hidden: int = 0,
) -> Table:
    table = _linear(f"{prefix}.proj_in", width, feature) | _linear(f"{prefix}.proj_out", context, width)
    table |= _norm(f"{prefix}.norm_out", context)
    inner, hidden = heads * dim_head, hidden or 4 * width
    for n in range(depth):
        attention, ff = f"{prefix}.layers.{n}.0", f"{prefix}.layers.{n}.1"
        table |= _norm(f"{attention}.norm1", width) | _norm(f"{attention}.norm2", width)
        table |= {f"{attention}.to_q.weight": (inner, width), f"{attention}.to_kv.weight": (2 * inner, width)}
        table |= {f"{attention}.to_out.weight": (width, inner)} | _norm(f"{ff}.0", width)
        table |= {f"{ff}.1.weight": (hidden, width), f"{ff}.3.weight": (width, hidden)}
    return table


def plus(
    feature: int, context: int, width: int, heads: int, tokens: int = 16, depth: int = 4, dim_head: int = 64
) -> Table:
    """Resampler of resampler.py."""
    table: Table = {"image_proj.latents": (1, tokens, width)}
    return table | perceiver("image_proj", feature, context, width, heads, depth, dim_head)


def faceid(context: int, tokens: int = 4, identity: int = 512) -> Table:
    """MLPProjModel of ip_adapter_faceid.py."""
    table = _linear("image_proj.proj.0", 2 * identity, identity)
    return (
        table
        | _linear("image_proj.proj.2", tokens * context, 2 * identity)
        | _norm("image_proj.norm", context)
    )


def faceid_plus(feature: int, context: int, tokens: int = 4, heads: int = 0, hidden: int = 0) -> Table:
    """ProjPlusModel of ip_adapter_faceid.py: its perceiver is as wide as the context, with heads of 64."""
    looks = perceiver(
        "image_proj.perceiver_resampler", feature, context, context, heads or context // 64, hidden=hidden
    )
    return faceid(context, tokens) | looks


def lora(widths: tuple[int, ...], context: int, rank: int = 128) -> Table:
    """LoRA of attention_processor_faceid.py: of attn1 (even) and attn2 (odd) of every site."""
    table: Table = {}
    for number, width in enumerate(width for site in widths for width in (site, site)):
        reads = {"q": width, "k": context if number % 2 else width, "out": width}
        for module, columns in (reads | {"v": reads["k"]}).items():
            key = f"ip_adapter.{number}.to_{module}_lora"
            table |= {f"{key}.down.weight": (rank, columns), f"{key}.up.weight": (width, rank)}
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
    token_width_before: int | None = None  # of the tokens, where the UNet projects its context first

    @property
    def token_width(self) -> int:
        return self.token_width_before or self.context


Proj = Callable[[Family, int], Table]


@dataclass(frozen=True)
class Kind:
    """What the network between encoder and tokens decides. proj: its tensors, by family and feature width."""

    variant: Variant
    feature: Feature
    unconditional: Unconditional
    tokens: int | None
    proj: Proj
    identity: Identity = Identity.NONE


def _faceid_plus(variant: Variant, tokens: int = 4) -> Kind:
    proj: Proj = lambda family, feature: faceid_plus(feature, family.token_width, tokens)  # noqa: E731
    return Kind(variant, Feature.PENULTIMATE, Unconditional.ZERO_PIXELS, tokens, proj, Identity.NORMALISED)


def _of_identity(variant: Variant, tokens: int, proj: Proj, identity: Identity) -> Kind:
    return Kind(variant, Feature.NONE, Unconditional.ZERO_FEATURES, tokens, proj, identity)


def _plus(family: Family, feature: int) -> Table:
    return plus(feature, family.context, family.resampler_width, family.resampler_heads)


_ZEROS, _ZERO_PIXELS = Unconditional.ZERO_FEATURES, Unconditional.ZERO_PIXELS
_SD15 = Family("SD1.5", 768, SD15, 768, 12)
_SDXL = Family("SDXL", 2048, SDXL, 1280, 20)
_KOLORS = Family("Kolors", 2048, SDXL, 2048, 12)
_KOLORS_FACE = Family("Kolors", 2048, SDXL, 0, 0, token_width_before=4096)
_BASE = Kind(Variant.BASE, Feature.IMAGE_EMBEDS, _ZEROS, 4, lambda family, width: base(width, family.context))
_PLUS = Kind(Variant.PLUS, Feature.PENULTIMATE, _ZERO_PIXELS, 16, _plus)
_FULL = Kind(
    Variant.FULL, Feature.PENULTIMATE, _ZERO_PIXELS, None, lambda family, width: full(width, family.context)
)
_FACEID = _of_identity(Variant.FACEID, 4, lambda family, _: faceid(family.context), Identity.NORMALISED)
_PORTRAIT = _of_identity(
    Variant.FACEID_PORTRAIT, 16, lambda family, _: faceid(family.context, 16), Identity.NORMALISED
)
_UNNORM = _of_identity(Variant.FACEID_PORTRAIT_UNNORM, 16, lambda family, _: _plus(family, 512), Identity.RAW)
_INSTANTID = _of_identity(Variant.INSTANTID, 16, lambda family, _: _plus(family, 512), Identity.RAW)


@dataclass(frozen=True)
class Layout:
    """One released file. parameters: of the projection, where counted in facts/paper.md 1.4 from the reference code."""

    file: str
    source: str
    family: Family
    kind: Kind
    encoder: str
    feature_width: int
    parameters: int | None = None
    lora: bool = False

    @property
    def image_proj(self) -> Table:
        return self.kind.proj(self.family, self.feature_width)

    @property
    def table(self) -> Table:
        table = self.image_proj | keys_values(self.family.widths, self.family.context)
        return table | lora(self.family.widths, self.family.context) if self.lora else table


_H94 = "huggingface.co/h94/IP-Adapter/tree/main/models"
_H94_XL = "huggingface.co/h94/IP-Adapter/tree/main/sdxl_models"
_FACE = "huggingface.co/h94/IP-Adapter-FaceID"
_OSTRIS = "huggingface.co/ostris/ip-composition-adapter"
_H, _G, _L336, _NO = "CLIP ViT-H/14", "CLIP ViT-bigG/14", "CLIP ViT-L/14-336", "no CLIP vision encoder"
_V1, _V2 = _faceid_plus(Variant.FACEID_PLUS), _faceid_plus(Variant.FACEID_PLUS_V2)

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
    Layout("ip-adapter-faceid_sd15", _FACE, _SD15, _FACEID, _NO, 0, 3_675_648, lora=True),
    Layout("ip-adapter-faceid_sdxl", _FACE, _SDXL, _FACEID, _NO, 0, lora=True),
    Layout("ip-adapter-faceid-plus_sd15", _FACE, _SD15, _V1, _H, 1280, lora=True),
    Layout("ip-adapter-faceid-plusv2_sd15", _FACE, _SD15, _V2, _H, 1280, lora=True),
    Layout("ip-adapter-faceid-plusv2_sdxl", _FACE, _SDXL, _V2, _H, 1280, lora=True),
    Layout("ip-adapter-faceid-portrait_sd15", _FACE, _SD15, _PORTRAIT, _NO, 0, 13_122_048),
    Layout("ip-adapter-faceid-portrait-v11_sd15", _FACE, _SD15, _PORTRAIT, _NO, 0, 13_122_048),
    Layout("ip-adapter-faceid-portrait_sdxl", _FACE, _SDXL, _PORTRAIT, _NO, 0),
    Layout("ip-adapter-faceid-portrait_sdxl_unnorm", _FACE, _SDXL, _UNNORM, _NO, 0),
    Layout("InstantID ip-adapter", "huggingface.co/InstantX/InstantID", _SDXL, _INSTANTID, _NO, 0),
    Layout(
        "ip_adapter_plus_general",
        "huggingface.co/Kwai-Kolors/Kolors-IP-Adapter-Plus",
        _KOLORS,
        _PLUS,
        _L336,
        1024,
    ),
    Layout(
        "ipa-faceid-plus",
        "huggingface.co/Kwai-Kolors/Kolors-IP-Adapter-FaceID-Plus",
        _KOLORS_FACE,
        _faceid_plus(Variant.FACEID_KOLORS, 6),
        _L336,
        1024,
    ),
    # presumed from how others load it, not from the file
    Layout("noobIPAMARK1_mark1", "huggingface.co/r3gm/noob-ipa", _SDXL, _BASE, _G, 1280, 10_498_048),
    Layout("NoobAI 448", "civitai.com/models/1233692", _SDXL, _PLUS, _G, 1664),
)
KEYS_VALUES_PARAMETERS = {"SD1.5": 19_169_280, "SDXL": 340_787_200, "Kolors": 340_787_200}
FACEID_LORA_PARAMETERS = 25_509_888  # rank 128, SD1.5
