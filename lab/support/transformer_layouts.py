"""Key -> shape tables of the released adapters for transformers, full size, all keys as the reader names them."""

from __future__ import annotations

from dataclasses import dataclass

from image_prompt.ipadapter_core.spec import Feature, Unconditional, Variant

from .layouts import Table, base, linear, norm


def xlabs(pairs: int, width: int, context: int, feature: int, tokens: int) -> Table:
    """x-flux (XLabs-AI), src/flux/xflux_pipeline.py: K' and V' of the double blocks, with bias, in a flat file."""
    table: Table = {}
    for n in range(pairs):
        for kind in "kv":
            table |= linear(
                f"double_blocks.{n}.processor.ip_adapter_double_stream_{kind}_proj", width, context
            )
    table |= linear("ip_adapter_proj_model.proj", tokens * context, feature)
    return table | norm("ip_adapter_proj_model.norm", context)


def xlabs_resaved(pairs: int, width: int, context: int, feature: int, tokens: int) -> Table:
    """The same as diffusers' FluxIPAdapterMixin takes it (loaders/ip_adapter.py)."""
    table: Table = {}
    for n in range(pairs):
        table |= linear(f"ip_adapter.{n}.to_k_ip", width, context)
        table |= linear(f"ip_adapter.{n}.to_v_ip", width, context)
    return table | base(feature, context, tokens)


def instantx(pairs: int, width: int, context: int, feature: int, tokens: int) -> Table:
    """FLUX.1-dev-IP-Adapter (InstantX), infer_flux_ipa_siglip.py: K' and V' of all blocks, without bias."""
    table = linear("image_proj.proj.0", 2 * feature, feature)
    table |= linear("image_proj.proj.2", tokens * context, 2 * feature) | norm("image_proj.norm", context)
    return table | {
        f"ip_adapter.{n}.to_{kind}_ip.weight": (width, context) for n in range(pairs) for kind in "kv"
    }


def open_blocks(prefix: str, pairs: int, width: int, token: int, feature: int) -> Table:
    """This pack's own, for transformers for which nobody released an adapter: base, with four tokens."""
    return base(feature, token, 4) | {
        f"ip_adapter.{prefix}{n}.to_{kind}_ip.weight": (width, token) for n in range(pairs) for kind in "kv"
    }


def instantx_sd3(
    pairs: int, width: int, feature: int, tokens: int, inner: int, depth: int = 4, waves: int = 320
) -> Table:
    """SD3.5-Large-IP-Adapter (InstantX), models/resampler.py and pipeline_stable_diffusion_3_ipa.py."""
    proj = "image_proj"
    table: Table = {f"{proj}.latents": (1, tokens, inner)} | norm(f"{proj}.norm_out", width)
    table |= linear(f"{proj}.proj_in", inner, feature) | linear(f"{proj}.proj_out", width, inner)
    table |= linear(f"{proj}.time_embedding.linear_1", inner, waves)
    table |= linear(f"{proj}.time_embedding.linear_2", inner, inner)
    for n in range(depth):
        layer = f"{proj}.layers.{n}"
        table |= norm(f"{layer}.0.norm1", inner) | norm(f"{layer}.0.norm2", inner)
        table |= {
            f"{layer}.0.to_q.weight": (inner, inner),
            f"{layer}.0.to_kv.weight": (2 * inner, inner),
            f"{layer}.0.to_out.weight": (inner, inner),
            f"{layer}.1.1.weight": (4 * inner, inner),
            f"{layer}.1.3.weight": (inner, 4 * inner),
        }
        table |= norm(f"{layer}.1.0", inner) | linear(f"{layer}.2.1", 4 * inner, inner)
    for n in range(pairs):
        site = f"ip_adapter.{n}"
        table |= linear(f"{site}.norm_ip.linear", 2 * width, inner)
        table |= {f"{site}.to_{kind}_ip.weight": (width, width) for kind in "kv"}
        table |= {f"{site}.{name}.weight": (64,) for name in ("norm_q", "norm_k", "norm_ip_k")}
    return table


# diffusers' names of a resampler's parts (loaders/transformer_sd3.py)
_RESAVED_SD3 = {
    ".0.norm1.": ".ln0.",
    ".0.norm2.": ".ln1.",
    ".0.to_q.": ".attn.to_q.",
    ".0.to_kv.": ".attn.to_kv.",
    ".0.to_out.": ".attn.to_out.0.",
    ".1.0.": ".adaln_norm.",
    ".1.1.": ".ff.net.0.proj.",
    ".1.3.": ".ff.net.2.",
    ".2.1.": ".adaln_proj.",
}


def resaved_sd3(key: str) -> str:
    """A key of that file as diffusers' SD3IPAdapterMixin saves and takes it (ip-adapter_diffusers.safetensors)."""
    head, layers, rest = key.partition("image_proj.layers.")
    number, _, part = rest.partition(".")
    names = (name for name in _RESAVED_SD3 if f".{part}".startswith(name))
    found = next(names, None)
    return f"{head}{layers}{number}{f'.{part}'.replace(found, _RESAVED_SD3[found], 1)}" if found else key


@dataclass(frozen=True)
class TransformerLayout:
    """One released file for a transformer, full size."""

    file: str
    source: str
    table: Table
    variant: Variant
    tokens: int
    pairs: int
    unconditional: Unconditional
    feature: Feature
    encoder: str
    family: str = "Flux.1"
    width: int = 3072
    context: int = 4096


_XLABS = "huggingface.co/XLabs-AI/flux-ip-adapter"
_SIGLIP = "SigLIP so400m/14-384"
_OF_XLABS = (19, Unconditional.BLACK_PICTURE, Feature.IMAGE_EMBEDS, "CLIP ViT-L/14")
_OF_INSTANTX = (57, Unconditional.NOTHING, Feature.POOLED, _SIGLIP)
_SD35 = instantx_sd3(38, 2432, 1152, 64, 1280)
_OF_SD35 = (
    38,
    Unconditional.ZERO_FEATURES,
    Feature.PENULTIMATE,
    _SIGLIP,
    "SD3.5 Large",
    2432,
    2432,
)
TRANSFORMER_LAYOUTS = (
    TransformerLayout("ip_adapter", _XLABS, xlabs(19, 3072, 4096, 768, 4), Variant.XLABS, 4, *_OF_XLABS),
    TransformerLayout(
        "ip_adapter v2", f"{_XLABS}-v2", xlabs(19, 3072, 4096, 768, 16), Variant.XLABS, 16, *_OF_XLABS
    ),
    TransformerLayout(
        "re-saved by diffusers",
        "github.com/huggingface/diffusers, FluxIPAdapterMixin",
        xlabs_resaved(19, 3072, 4096, 768, 4),
        Variant.XLABS,
        4,
        *_OF_XLABS,
    ),
    TransformerLayout(
        "ip-adapter",
        "huggingface.co/InstantX/FLUX.1-dev-IP-Adapter",
        instantx(57, 3072, 4096, 1152, 128),
        Variant.INSTANTX,
        128,
        *_OF_INSTANTX,
    ),
    TransformerLayout(
        "ip-adapter for SD3.5",
        "huggingface.co/InstantX/SD3.5-Large-IP-Adapter",
        _SD35,
        Variant.INSTANTX,
        64,
        *_OF_SD35,
    ),
    TransformerLayout(
        "ip-adapter_diffusers",
        "huggingface.co/InstantX/SD3.5-Large-IP-Adapter, refs/pr/10",
        {resaved_sd3(key): shape for key, shape in _SD35.items()},
        Variant.INSTANTX,
        64,
        *_OF_SD35,
    ),
)
