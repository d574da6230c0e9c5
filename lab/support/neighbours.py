"""Key -> shape tables of adapters of other methods and models, full size, that are recognised and refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .layouts import Table, linear, norm, perceiver


@dataclass(frozen=True)
class Neighbour:
    """source: where its keys are from. words: of the sentence that refuses it: what it is, and what to use."""

    table: Table
    source: str
    words: tuple[str, ...]


def _redux() -> Table:
    return linear("redux_up", 12288, 1152) | linear("redux_down", 4096, 12288)


def _uso() -> Table:
    made: Table = {}
    for level in ("high", "mid", "low"):
        made |= linear(f"{level}_embedding_linear.0", 64, 729) | norm(f"{level}_layer_norm", 1152)
        made |= linear(f"{level}_projection", 3072, 1152)
    return made


def _mapping(prefix: str, before: int, after: int) -> Table:
    """Linear, norm, Linear, norm, Linear, with activations between them."""
    made = linear(f"{prefix}.0", 1024, before) | norm(f"{prefix}.1", 1024)
    return (
        made
        | linear(f"{prefix}.3", 1024, 1024)
        | norm(f"{prefix}.4", 1024)
        | linear(f"{prefix}.6", after, 1024)
    )


def _cross(prefix: str, width: int, context: int, inner: int) -> Table:
    made = norm(f"{prefix}.norm1", context) | norm(f"{prefix}.norm2", width)
    made |= {f"{prefix}.to_q.weight": (inner, width), f"{prefix}.to_kv.weight": (2 * inner, context)}
    return made | {f"{prefix}.to_out.weight": (width, inner)}


def _pulid() -> Table:
    made: Table = {"pulid_encoder.latents": (1, 32, 1024), "pulid_encoder.proj_out": (1024, 2048)}
    for n in range(10):
        made |= _cross(f"pulid_encoder.layers.{n}.0", 1024, 1024, 1024)
        ff = f"pulid_encoder.layers.{n}.1"
        made |= norm(f"{ff}.0", 1024) | {f"{ff}.1.weight": (4096, 1024), f"{ff}.3.weight": (1024, 4096)}
    for n in range(5):
        made |= _mapping(f"pulid_encoder.mapping_{n}", 1024, 1024)
    made |= _mapping("pulid_encoder.id_embedding_mapping", 1280, 5120)
    for n in range(20):
        made |= _cross(f"pulid_ca.{n}", 3072, 2048, 2048)
    return made


def _infinite_you() -> Table:
    return {"image_proj.latents": (1, 8, 1280)} | perceiver("image_proj", 512, 4096, 1280, 20)


def _instant_character() -> Table:
    made: Table = {"image_proj.resampler.latents": (1, 1024, 1280)}
    for n in range(57):
        made |= linear(f"ip_adapter.{n}.to_k_ip", 3072, 4096) | linear(f"ip_adapter.{n}.to_v_ip", 3072, 4096)
        made |= {f"ip_adapter.{n}.norm_ip_{part}.weight": (128,) for part in "qk"}
    return made


def _instruct() -> Table:
    names = ("to_k_ip", "to_v_ip", "add_k_proj_ip", "add_v_proj_ip", "proj_ip")
    names += ("proj_encoder_hidden_states_ip", "proj_encoder_passthrough_ip")
    made: Table = {f"ip_adapter.{n}.{name}.weight": (1536, 1536) for n in range(24) for name in names}
    return made | {"image_proj.latents": (1, 16, 1536)} | perceiver("image_proj", 1280, 1536, 1536, 24)


def _hunyuan_dit() -> Table:
    made = linear("ip_adapter_clip_len_trans_block", 8192, 1024) | norm("ip_adapter_img_norm_cond", 1024)
    for n in range(40):
        made |= linear(f"blocks.{n}.attn2.kv_proj_ip_adapter", 2816, 1024)
        made |= norm(f"blocks.{n}.attn2.k_norm_ip_adapter", 88)
    return made


def _anima() -> Table:
    made: Table = {"ip_centroid": (1024,), "resampler.queries": (1, 16, 1024)}
    made |= (
        linear("resampler.kv_proj", 1024, 1024)
        | norm("resampler.out_norm", 1024)
        | linear("resampler.out", 1024, 1024)
    )
    for n in range(2):
        block = f"resampler.blocks.{n}"
        for part in ("q_norm_x", "kv_norm_x", "norm_s", "norm_f"):
            made |= norm(f"{block}.{part}", 1024)
        for part in ("xattn", "sattn"):
            made |= {f"{block}.{part}.in_proj_weight": (3072, 1024), f"{block}.{part}.in_proj_bias": (3072,)}
            made |= linear(f"{block}.{part}.out_proj", 1024, 1024)
        made |= linear(f"{block}.ffn.0", 4096, 1024) | linear(f"{block}.ffn.2", 1024, 4096)
    for n in range(28):
        made |= {f"to_{part}_ip.{n}.weight": (2048, 1024) for part in "kv"} | {f"ip_gate.{n}": ()}
    return made


def _anima_siglip() -> Table:
    made: Table = {"resampler.latents": (1, 32, 1024), "resampler.time_proj.weight": (1024, 1024)}
    for n in range(28):
        block = f"ip_cross_attns.{n}"
        made |= {f"{block}.to_{part}_ip.weight": (2048, 2048) for part in "kv"}
        made |= {f"{block}.norm_ip_{part}.scale": (128,) for part in "qk"} | {f"ip_scales.{n}": (1,)}
    return made


def _ai_toolkit() -> Table:
    pairs: Table = {f"ip_adapter.{n}.to_{part}_ip.weight": (3072, 3072) for n in range(57) for part in "kv"}
    return pairs | {"image_proj.latents": (1, 16, 1280)} | perceiver("image_proj", 1152, 3072, 1280, 20)


NEIGHBOURS: Mapping[str, Neighbour] = {
    "Redux": Neighbour(
        _redux(),
        "ComfyUI, comfy/ldm/flux/redux.py",
        ("Flux Redux", "models/style_models", "Apply Style Model"),
    ),
    "USO": Neighbour(
        _uso(),
        "ComfyUI, comfy_extras/nodes_model_patch.py SigLIPMultiFeatProjModel",
        ("USO projector", "models/model_patches", "USO Style Reference"),
    ),
    "PuLID": Neighbour(
        _pulid(),
        "ToTheBeginning/PuLID 1aa2fc7, pulid/encoders_transformer.py IDFormer, PerceiverAttentionCA",
        ("PuLID adapter for Flux", "Use a PuLID pack"),
    ),
    "InfiniteYou": Neighbour(
        _infinite_you(),
        "bytedance/InfiniteYou aaa6ea5, pipelines/pipeline_infu_flux.py image_proj_model.bin",
        ("InfiniteYou", "Use that project's own code or an InfiniteYou pack"),
    ),
    "InstantCharacter": Neighbour(
        _instant_character(),
        "huggingface.co/tencent/InstantCharacter instantcharacter_ip-adapter.bin",
        ("InstantCharacter", "Use that project's own code"),
    ),
    "IP-Adapter-Instruct": Neighbour(
        _instruct(),
        "unity-research/IP-Adapter-Instruct 57efbe4, ip-adapter-instruct-sd3.bin",
        ("IP-Adapter-Instruct for SD3", "Use that project's own code"),
    ),
    "HunyuanDiT": Neighbour(
        _hunyuan_dit(),
        "Tencent-Hunyuan/HunyuanDiT d2cb9cd, hydit/modules/models.py, attn_layers.py",
        ("IP-Adapter for HunyuanDiT", "Use an adapter for"),
    ),
    "Anima": Neighbour(
        _anima(),
        "sorryhyun/anima_lora 0acdb05, bench/ip_adapter/impl/ip_adapter.py",
        ("adapter for Anima", "no loader for the encoder", "own node"),
    ),
    "Anima, SigLIP2": Neighbour(
        _anima_siglip(), "Wenaka2004/comfyui-anima-ipadapter 5f53e2b", ("adapter for Anima", "own node")
    ),
    "ai-toolkit": Neighbour(
        _ai_toolkit(),
        "ostris/ai-toolkit 27a03a9, toolkit/ip_adapter.py",
        ("ai-toolkit", "which layer of which encoder", "Use an adapter of XLabs or InstantX"),
    ),
}
