"""Released files by name and sha256: what each is, what it needs beside it, and where to get it.

Hashes and sizes are those that the publishers' large-file records and public download lists agree on; what could not
be confirmed is None. Rows of one intent stand in order of preference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from .nearest import is_generic_name, match_name
from .released import HASH_PREFIX, Intent, Kind, KnownFile

_INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
H, L, L336, G = "CLIP ViT-H/14", "CLIP ViT-L/14", "CLIP ViT-L/14-336", "CLIP ViT-bigG/14"
SIGLIP = "SigLIP so400m/14-384"
# As AdapterSpec.encoder names it.
NO_ENCODER = "no CLIP vision encoder"
_IPA, _FACEID = "h94/IP-Adapter", "h94/IP-Adapter-FaceID"
_OSTRIS, _NOOB = "ostris/ip-composition-adapter", "r3gm/noob-ipa"
_KOLORS, _KOLORS_FACEID = "Kwai-Kolors/Kolors-IP-Adapter-Plus", "Kwai-Kolors/Kolors-IP-Adapter-FaceID-Plus"
_XLABS, _INSTANTX = "XLabs-AI/flux-ip-adapter", "InstantX/FLUX.1-dev-IP-Adapter"
_INSTANTX_SD3 = "InstantX/SD3.5-Large-IP-Adapter"
_APACHE, _MIT = "Apache-2.0", "MIT"
_FLUX_DEV = "FLUX.1 dev licence, non-commercial"
_RESEARCH = "non-commercial research only"
# Of adapters and LoRAs by repository; Apache-2.0 where none stands here.
_LICENCES = {
    _FACEID: _RESEARCH,
    _NOOB: "Fair AI Public License 1.0-SD",
    _KOLORS_FACEID: "see its page; its face model: non-commercial research only",
    _XLABS: _FLUX_DEV,
    _INSTANTX: _FLUX_DEV,
    _INSTANTX_SD3: "Stability AI Community License, free for small businesses",
}


def _adapter_row(
    name: str,
    origin: tuple[str, str],
    detected: tuple[str, str, str, Intent],
    published_mb: float,
    sha256: str | None,
    size: int | None = None,
    name_hints: tuple[str, ...] = (),
    faces: str = "",
) -> KnownFile:
    """An adapter. origin: repo, and path or folder there; detected: family, variant, encoder, intent."""
    repo, path = origin
    family, variant, encoder, intent = detected
    return KnownFile(
        name, Kind.ADAPTER, "ipadapter", _LICENCES.get(repo, _APACHE), published_mb, sha256, size, repo,
        path if path and not path.endswith("/") else path + name,
        family=family, variant=variant, intent=intent, encoder=encoder, name_hints=name_hints, faces=faces,
    )  # fmt: skip


def _face_adapter_row(
    name: str,
    family: str,
    variant: str,
    intent: Intent,
    published_mb: float,
    sha256: str | None,
    size: int | None = None,
    name_hints: tuple[str, ...] = (),
) -> KnownFile:
    """A FaceID adapter: its LoRA is named after it, and portraits have none."""
    detected = (family, variant, H if "plus" in variant else NO_ENCODER, intent)
    made = _adapter_row(
        name, (_FACEID, ""), detected, published_mb, sha256, size, name_hints, "buffalo_l.zip"
    )
    return made if "portrait" in variant else replace(made, lora=name.replace(".bin", "_lora.safetensors"))


def _transformer_row(
    name: str,
    origin: tuple[str, str],
    detected: tuple[str, str, str, Intent],
    tokens: int,
    published_mb: float,
    sha256: str,
) -> KnownFile:
    """An adapter for a transformer. Few were released: each serves the two usual intents, its own first."""
    made = _adapter_row(name, origin, detected, published_mb, sha256)
    also = tuple(intent for intent in (Intent.STANDARD, Intent.PLUS) if intent is not made.intent)
    return replace(made, tokens=tokens, also=also)


def _lora_row(
    name: str,
    family: str,
    published_mb: float,
    sha256: str,
    size: int | None,
    name_hints: tuple[str, ...] = (),
) -> KnownFile:
    return KnownFile(
        name, Kind.LORA, "loras", _LICENCES[_FACEID], published_mb, sha256, size, _FACEID, name,
        family=family, name_hints=name_hints,
    )  # fmt: skip


def _encoder_row(
    name: str, encoder: str, repo: str, path: str, licence: str, size: int, sha256: str
) -> KnownFile:
    return KnownFile(
        name, Kind.ENCODER, "clip_vision", licence, size / 1e6, sha256, size, repo, path, encoder=encoder
    )


def _face_pack_row(name: str, size: int, sha256: str, members: tuple[str, ...]) -> KnownFile:
    return KnownFile(
        name, Kind.FACE_PACK, "insightface/models", _RESEARCH, size / 1e6, sha256, size,
        link=f"{_INSIGHTFACE}/{name}", members=members,
    )  # fmt: skip


_V1, _XL, _KO, _FX, _S3 = "SD1.5", "SDXL", "Kolors", "Flux.1", "SD3.5 Large"
# Folders of h94/IP-Adapter.
_SD, _SX = "models/", "sdxl_models/"

# fmt: off
CATALOG: tuple[KnownFile, ...] = (
    _adapter_row("ip-adapter_sd15.safetensors", (_IPA, _SD), (_V1, "base", H, Intent.STANDARD), 44.6,
        "289b45f16d043d0bf542e45831f971dcdaabe18b656f11e86d9dfba7e9ee3369", 44_642_768),
    _adapter_row("ip-adapter_sd15_light_v11.bin", (_IPA, _SD), (_V1, "base", H, Intent.LIGHT), 44.6,
        "350b63a57847c163e2e984b01090f85ffe60eaae20f32b2b2c9e1ccc7ddd972b", 44_642_977, ("light",)),
    _adapter_row("ip-adapter_sd15_light.safetensors", (_IPA, _SD), (_V1, "base", H, Intent.LIGHT), 44.6,
        "0747d08db670535bfa286452a77d93cebad5c677b46d038543f9f2de8690bb26", 44_642_768, ("light",)),
    _adapter_row("ip-adapter_sd15_vit-G.safetensors", (_IPA, _SD), (_V1, "base", G, Intent.BIG_ENCODER), 46.2,
        "a26f736af07bb341a83dfea23713531d0575760e8ed947c68cb31a4c62d9c90b", 46_215_640),
    _adapter_row("ip-adapter-plus_sd15.safetensors", (_IPA, _SD), (_V1, "plus", H, Intent.PLUS), 98.2,
        "a1c250be40455cc61a43da1201ec3f1edaea71214865fb47f57927e06cbe4996", 98_183_288),
    _adapter_row("ip-adapter-plus-face_sd15.safetensors", (_IPA, _SD), (_V1, "plus", H, Intent.PLUS_FACE), 98.2,
        "1c9edc21af6f737dc1d6e0e734190e976cfacf802d6b024b77aa3be922f7569b", 98_183_288, ("face",)),
    _adapter_row("ip-adapter-full-face_sd15.safetensors", (_IPA, _SD), (_V1, "full", H, Intent.FULL_FACE), 43.6,
        "f4a17fb643bf876235a45a0e87a49da2855be6584b28ca04c62a97ab5ff1c6f3", 43_592_352),
    _adapter_row("ip-adapter_sdxl_vit-h.safetensors", (_IPA, _SX), (_XL, "base", H, Intent.STANDARD), 698.4,
        "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831", 698_391_064),
    _adapter_row("ip-adapter_sdxl.safetensors", (_IPA, _SX), (_XL, "base", G, Intent.BIG_ENCODER), 702.6,
        "ba1002529e783604c5f326d49f0122025392d1d20ac8d573b3eeb3e6dea4ebb6", 702_585_376),
    _adapter_row("ip-adapter-plus_sdxl_vit-h.safetensors", (_IPA, _SX), (_XL, "plus", H, Intent.PLUS), 847.5,
        "3f5062b8400c94b7159665b21ba5c62acdcd7682262743d7f2aefedef00e6581", 847_517_512),
    _adapter_row("ip-adapter-plus-face_sdxl_vit-h.safetensors", (_IPA, _SX), (_XL, "plus", H, Intent.PLUS_FACE), 847.5,
        "677ad8860204f7d0bfba12d29e6c31ded9beefdf3e4bbd102518357d31a292c1", 847_517_512, ("face",)),
    _adapter_row("ip_plus_composition_sd15.safetensors", (_OSTRIS, ""), (_V1, "plus", H, Intent.COMPOSITION), 98.2,
        "4a02c9f4d2ade7c0e14db7471377ce5d326a2bfda7777231c79dc861c93f2c12", None, ("composition",)),
    _adapter_row("ip_plus_composition_sdxl.safetensors", (_OSTRIS, ""), (_XL, "plus", H, Intent.COMPOSITION), 847.5,
        "e92dc36cc273bac3200b2e41807ebdc174076185d95a45238558d4c236b6da74", None, ("composition",)),
    _adapter_row("noobIPAMARK1_mark1.safetensors", (_NOOB, "model_G/"), (_XL, "base", G, Intent.ANIME), 1405.2,
        "5cdb6a00be1b12579745b5bed0c7b83f0869073d8a864fa8cd50a9356601919a", 1_405_172_056,
        ("noob", "illustrious", "anime")),
    _adapter_row("Kolors-IP-Adapter-Plus.bin", (_KOLORS, "ip_adapter_plus_general.bin"),
        (_KO, "plus", L336, Intent.PLUS), 1010, None),
    _adapter_row("Kolors-IP-Adapter-FaceID-Plus.bin", (_KOLORS_FACEID, "ipa-faceid-plus.bin"),
        (_KO, "faceid kolors", L336, Intent.FACE_ID_PLUS), 2390, None, faces="antelopev2.zip"),
    _face_adapter_row("ip-adapter-faceid_sd15.bin", _V1, "faceid", Intent.FACE_ID, 96.7,
        "201344e22e6f55849cf07ca7a6e53d8c3b001327c66cb9710d69fd5da48a8da7", 96_740_574),
    _face_adapter_row("ip-adapter-faceid-plusv2_sd15.bin", _V1, "faceid plus v2", Intent.FACE_ID_PLUS, 156.6,
        "26d0d86a1d60d6cc811d3b8862178b461e1eeb651e6fe2b72ba17aa95411e313", 156_558_509, ("plus", "v2")),
    _face_adapter_row("ip-adapter-faceid-plus_sd15.bin", _V1, "faceid plus", Intent.FACE_ID_PLUS, 156.6,
        "252fb53e0d018489d9e7f9b9e2001a52ff700e491894011ada7cfb471e0fadf2",
        None, ("plus",)),
    _face_adapter_row("ip-adapter-faceid-portrait-v11_sd15.bin", _V1, "faceid portrait", Intent.PORTRAIT, 64.6,
        "a48cb4f89ed18e02c6000f65aa9efec452e87eaed4a1bc9fcf4a460c8d0e3bc6", 64_586_623),
    _face_adapter_row("ip-adapter-faceid-portrait_sd15.bin", _V1, "faceid portrait", Intent.PORTRAIT, 64.6, None),
    _face_adapter_row("ip-adapter-faceid_sdxl.bin", _XL, "faceid", Intent.FACE_ID, 1070,
        "f455fed24e207c878ec1e0466b34a969d37bab857c5faa4e8d259a0b4ff63d7e",
        None),
    _face_adapter_row("ip-adapter-faceid-plusv2_sdxl.bin", _XL, "faceid plus v2", Intent.FACE_ID_PLUS, 1487.6,
        "c6945d82b543700cc3ccbb98d363b837e9c596281607857c74b713a876daf5fb", 1_487_555_181, ("plus", "v2")),
    _face_adapter_row("ip-adapter-faceid-portrait_sdxl.bin", _XL, "faceid portrait", Intent.PORTRAIT, 749.8,
        "5631ce7824cdafd2db37c5e85b985730a95ff59c5b4fc80c2b79b0bee5711512", 749_822_515),
    _face_adapter_row(
        "ip-adapter-faceid-portrait_sdxl_unnorm.bin", _XL, "faceid portrait unnorm", Intent.PORTRAIT_STRONG, 1009.5,
        "220bb86e205393a3d0411631cb473caddbf35fd371be2905ca9008818170db55", 1_009_523_411, ("unnorm",)),
    _transformer_row("flux-ip-adapter-v2.safetensors", (f"{_XLABS}-v2", "ip_adapter.safetensors"),
        (_FX, "xlabs", L, Intent.PLUS), 16, 1057.3,
        "8f2bfddaffc4fe2a6667bef24c8ce6075e81d01d0f6b0f9adbe46ad686057ee2"),
    _transformer_row("flux-ip-adapter.safetensors", (_XLABS, "ip_adapter.safetensors"),
        (_FX, "xlabs", L, Intent.STANDARD), 4, 981.7,
        "750f912149b84bbb0c2a6ce90ffa7e78afd1795821407718724ebcd36372dc2d"),
    _transformer_row("FLUX.1-dev-IP-Adapter.bin", (_INSTANTX, "ip-adapter.bin"),
        (_FX, "instantx", SIGLIP, Intent.PLUS), 128, 5291.2, "01aaeb0dace9ea4f"),
    _transformer_row("SD3.5-Large-IP-Adapter.bin", (_INSTANTX_SD3, "ip-adapter.bin"),
        (_S3, "instantx", SIGLIP, Intent.PLUS), 64, 1595.9, "9fe54774aa528e71"),
    _lora_row("ip-adapter-faceid_sd15_lora.safetensors", _V1, 51.1,
        "70699f0dbfadd47de1f81d263cf4c86bd4b7271d841304af9b340b3a7f38e86a", 51_059_544),
    _lora_row("ip-adapter-faceid-plus_sd15_lora.safetensors", _V1, 51.1,
        "3f00341d11e5e7b5aadf63cbdead09ef82eb28669156161cf1bfc2105d4ff1cd", None, ("plus",)),
    _lora_row("ip-adapter-faceid-plusv2_sd15_lora.safetensors", _V1, 51.1,
        "8abff87a15a049f3e0186c2e82c1c8e77783baf2cfb63f34c412656052eb57b0", None, ("plus", "v2")),
    _lora_row("ip-adapter-faceid_sdxl_lora.safetensors", _XL, 371.8,
        "4fcf93d6e8dc8dd18f5f9e51c8306f369486ed0aa0780ade9961308aff7f0d64", None),
    _lora_row("ip-adapter-faceid-plusv2_sdxl_lora.safetensors", _XL, 371.8,
        "f24b4bb2dad6638a09c00f151cde84991baf374409385bcbab53c1871a30cb7b", 371_842_896, ("plus", "v2")),
    _encoder_row("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", H, _IPA, _SD + "image_encoder/model.safetensors",
        _APACHE, 2_528_373_448,
        "6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030"),
    _encoder_row("CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors", G, _IPA, _SX + "image_encoder/model.safetensors",
        _APACHE, 3_689_912_664,
        "657723e09f46a7c3957df651601029f66b1748afb12b419816330f16ed45d64d"),
    _encoder_row("clip-vit-large-patch14.safetensors", L, "openai/clip-vit-large-patch14", "model.safetensors",
        _MIT, 1_710_540_580,
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"),
    _encoder_row("clip-vit-large-patch14-336.bin", L336, "openai/clip-vit-large-patch14-336", "pytorch_model.bin",
        _MIT, 1_711_974_081,
        "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801"),
    _encoder_row("sigclip_vision_patch14_384.safetensors", SIGLIP, "Comfy-Org/sigclip_vision_384",
        "sigclip_vision_patch14_384.safetensors", _APACHE, 856_505_640,
        "1fee501deabac72f0ed17610307d7131e3e9d1e838d0363aa3c2b97a6e03fb33"),
    _encoder_row("siglip-so400m-patch14-384.safetensors", SIGLIP, "google/siglip-so400m-patch14-384",
        "model.safetensors", _APACHE, 3_511_950_624,
        "ea2abad2b7f8a9c1aa5e49a244d5d57ffa71c56f720c94bc5d240ef4d6e1d94a"),
    _face_pack_row("buffalo_l.zip", 288_621_354,
        "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f", ("det_10g.onnx", "w600k_r50.onnx")),
    _face_pack_row("antelopev2.zip", 360_662_982,
        "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5", ("scrfd_10g_bnkps.onnx", "glintr100.onnx")),
)
# fmt: on
BY_SHA256 = {row.sha256[:HASH_PREFIX]: row for row in CATALOG if row.sha256}
FAMILIES = (_V1, _XL, _KO, _FX, _S3)


def file_named(name: str) -> KnownFile | None:
    """The released file of this name, whatever its case, folder, suffix, and the order of its words.

    None for a name of no released file, and for upstream's bare 'model' and 'pytorch_model'.
    """
    by_name = {known.name: known for known in CATALOG}
    by_path = {PurePosixPath(known.path).name: known for known in CATALOG if known.path}
    wanted = PureWindowsPath(name.strip()).name
    for table in (by_name, by_path):
        if (
            found := match_name(wanted, [known for known in table if not is_generic_name(known)])
        ) is not None:
            return table[found]
    return None


def files_for(intent: Intent, family: str) -> tuple[KnownFile, ...]:
    """Adapters that serve an intent on a base family, the preferred one first: those whose own it is."""
    served = (row for row in CATALOG if row.family == family and row.serves(intent))
    return tuple(sorted(served, key=lambda row: row.intent is not intent))


def families_for(intent: Intent) -> tuple[str, ...]:
    """Base families for which an adapter with this intent was released."""
    return tuple(family for family in FAMILIES if files_for(intent, family))


def encoder_file(encoder: str) -> KnownFile | None:
    """The released encoder of this name (as AdapterSpec.encoder gives it), the preferred file."""
    return next(iter(encoder_files(encoder)), None)


def encoder_files(encoder: str) -> tuple[KnownFile, ...]:
    """All files of it that were released."""
    return tuple(row for row in CATALOG if row.kind is Kind.ENCODER and row.encoder == encoder)


def catalog_row(name: str) -> KnownFile:
    """The row of exactly this name; KeyError if there is none."""
    return {known.name: known for known in CATALOG}[name]


def of_layout(
    variants: Iterable[str], family: str, encoder: str, tokens: int | None = 0
) -> tuple[KnownFile, ...]:
    """Released adapters with the same keys and shapes, by what `detect` reports of them. tokens: 0 for any number."""
    allowed = frozenset(variants)
    return tuple(
        known
        for known in CATALOG
        if known.kind is Kind.ADAPTER
        and (known.family, known.encoder) == (family, encoder)
        and known.variant in allowed
        and (tokens == 0 or known.tokens in (0, tokens))
    )
