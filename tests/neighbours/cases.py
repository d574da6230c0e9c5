"""The graphs of the table."""

from __future__ import annotations

import sys
from typing import Any

import torch
from support import tiny
from torch import Tensor

from . import images, packs
from .measure import Case, Graph

LEFT, RIGHT = slice(0, 8), slice(8, 16)


def text(family: tiny.Family, seed: int, tokens: int = 7, **extras: Any) -> list[Any]:
    """CONDITIONING of one text, as the host's text nodes give it."""
    context, _ = tiny.conditioning(family, seed, tokens=tokens)
    pooled = torch.randn(1, 1280, generator=torch.Generator().manual_seed(seed))
    return [[context, ({"pooled_output": pooled} if family.adm else {}) | extras]]


def half(side: slice, size: tuple[int, int] = (16, 16), factor: int = 8) -> Tensor:
    """A mask (1, H, W) in pixels of half of the picture."""
    mask = torch.zeros(1, size[0] * factor, size[1] * factor)
    mask[:, :, side.start * factor : side.stop * factor] = 1
    return mask


PERTURBED, NAG = "sd-perturbed-attention", "ComfyUI-NAG"
COUPLE, CGEM = "attention-couple-ComfyUI", "cgem156-ComfyUI"


# --- guidance -------------------------------------------------------------------------------------------


def nag_sampler(model: Any, graph: Graph) -> Tensor:
    out = packs.node(
        NAG, "KSamplerWithNAG", model=model, seed=9, steps=2, cfg=4.0, sampler_name="euler", scheduler="normal",
        positive=graph.positive, negative=graph.negative, nag_negative=text(graph.family, 77),
        latent_image={"samples": torch.zeros_like(graph.noise)},
    )  # fmt: skip
    return out[0]["samples"]


def perturbed(node_id: str, **inputs: Any):
    return lambda model, graph: packs.node(PERTURBED, node_id, model=model, **inputs)[0]


def perturbed_nag(model: Any, graph: Graph) -> Any:
    negative = text(graph.family, 77)
    return packs.node(PERTURBED, "NormalizedAttentionGuidance", model=model, negative=negative)[0]


# --- regions --------------------------------------------------------------------------------------------


def couple_prompts(family: tiny.Family) -> tuple[Any, Any]:
    return text(family, 10), text(family, 11)


def couple(model: Any, graph: Graph) -> Any:
    parts = [
        [cond, extras | {"mask": half(side, factor=1), "mask_strength": 1.0}]
        for side, seed in ((LEFT, 10), (RIGHT, 12))
        for cond, extras in text(graph.family, seed)
    ]
    return packs.node(
        COUPLE, "Attention couple", model=model, positive=parts, negative=graph.negative, mode="Attention"
    )[0]


def cgem(regions: int):
    def patch(model: Any, graph: Graph) -> Any:
        packs.load(CGEM)
        more = {}
        for n in range(1, regions):
            more[f"cond_{n}"], more[f"mask_{n}"] = text(graph.family, 20 + n), half(RIGHT)
        node_id = next(
            name for name in packs.host_nodes.NODE_CLASS_MAPPINGS if name.startswith("AttentionCouple|")
        )
        return packs.core(node_id, model=model, base_mask=torch.ones_like(half(LEFT)), **more)[0]

    return patch


def ppm(regions: int):
    def patch(model: Any, graph: Graph) -> Any:
        more = {}
        for n in range(1, regions):
            more[f"cond_{n}"], more[f"mask_{n}"] = text(graph.family, 20 + n), half(RIGHT)
        base = {"base_cond": graph.positive, "base_mask": torch.ones_like(half(LEFT))}
        return packs.node("ComfyUI-ppm", "AttentionCouplePPM", model=model, **base, **more)[0]

    return patch


def krita(regions: int):
    def patch(model: Any, graph: Graph) -> Any:
        pack = "comfyui-tooling-nodes"
        (found,) = packs.node(pack, "ETN_BackgroundRegion", conditioning=text(graph.family, 10))
        for n in range(1, regions):
            found = packs.node(
                pack,
                "ETN_DefineRegion",
                mask=half(RIGHT) / regions,
                conditioning=text(graph.family, 20 + n),
                regions=found,
            )[0]
        return packs.node(pack, "ETN_AttentionMask", model=model, regions=found)[0]

    return patch


def prompt_control(batched: bool):
    """Conditioning with a hook of the pack, as its text nodes make it; batched: the negative gets the hook too."""

    def prompts(family: tiny.Family) -> tuple[Any, Any]:
        pack = "comfyui-prompt-control"
        packs.load(pack)
        (module,) = [
            m for name, m in sys.modules.items() if name.endswith("prompt_control.attention_couple_ppm")
        ]
        region = text(family, 12, mask=half(RIGHT), mask_strength=1.0)
        positive, negative = module.set_cond_attnmask(text(family, 10), region, fill=True), text(family, 11)
        if batched:
            batch = packs.core("PCAttentionCoupleBatchNegative", positive=positive, negative=negative)
            return batch[0], batch[1]
        return positive, negative

    return prompts


# --- places ---------------------------------------------------------------------------------------------


def tiled(method: str, batch: int):
    """Tiles of 16x16 latent pixels. SpotDiffusion shifts them, by a seed of its own."""

    def patch(model: Any, graph: Graph) -> Any:
        pack = "ComfyUI-TiledDiffusion"
        given = {"tile_width": 128, "tile_height": 128, "tile_overlap": 32, "tile_batch_size": batch}
        cut = packs.node(pack, "TiledDiffusion", model=model, method=method, **given)[0]
        return packs.node(pack, "SpotDiffusionParams_TiledDiffusion", model=cut, seed=5)[0]

    return patch


def area_prompts(family: tiny.Family) -> tuple[Any, Any]:
    """ConditioningSetArea on the left and on the right: the usual graph of two areas."""
    parts = []
    for x, seed in ((0, 10), (64, 12)):
        parts += packs.core(
            "ConditioningSetArea",
            conditioning=text(family, seed),
            width=128,
            height=128,
            x=x,
            y=0,
            strength=1.0,
        )[0]
    return parts, text(family, 11)


def windows(**inputs: Any):
    def patch(model: Any, graph: Graph) -> Any:
        packs.extra("nodes_context_windows")
        return packs.core(
            "ContextWindowsManual", model=model, dim=0, context_length=4, context_overlap=2, **inputs
        )[0]

    return patch


def extra(module: str, node_id: str, **inputs: Any):
    def patch(model: Any, graph: Graph) -> Any:
        packs.extra(module)
        return packs.core(node_id, model=model, **inputs)[0]

    return patch


def animate(model: Any, graph: Graph) -> Any:
    """AnimateDiff's sliding windows, without a motion model, whose sizes are fixed."""
    pack = "ComfyUI-AnimateDiff-Evolved"
    given = {"context_length": 4, "context_overlap": 2}
    (windows_,) = packs.node(pack, "ADE_StandardUniformContextOptions", **given)
    return packs.node(pack, "ADE_UseEvolvedSampling", model=model, context_options=windows_)[0]


def chain(*patches: Any):
    """Several nodes one after the other."""

    def patch(model: Any, graph: Graph) -> Any:
        for each in patches:
            model = each(model, graph)
        return model

    return patch


def jank(node_id: str, **inputs: Any):
    return lambda model, graph: packs.node("comfyui_jankhidiffusion", node_id, model=model, **inputs)[0]


WIDE = (16, 28)
ALL = [
    Case("no pack"),
    Case("NAG (sampler)", (NAG,), sample=nag_sampler),
    Case("NAG (node of sd-perturbed-attention)", (PERTURBED,), perturbed_nag),
    Case("PLADIS", (PERTURBED,), perturbed("PLADIS")),
    Case("PAG", (PERTURBED,), perturbed("PerturbedAttention")),
    Case("SEG", (PERTURBED,), perturbed("SmoothedEnergyGuidanceAdvanced")),
    Case("SAG of the host", (), extra("nodes_sag", "SelfAttentionGuidance", scale=0.5, blur_sigma=2.0)),
    Case("HyperTile of the host", (), extra("nodes_hypertile", "HyperTile", tile_size=32), size=(32, 32)),
    Case("attention couple, laksjdjf", (COUPLE,), couple, prompts=couple_prompts),
    *(Case(f"attention couple, cgem156, {n} texts", (CGEM,), cgem(n)) for n in (2, 3, 4)),
    *(Case(f"attention couple, ppm, {n} texts", ("ComfyUI-ppm",), ppm(n)) for n in (2, 3, 4)),
    *(Case(f"regions of Krita, {n}", ("comfyui-tooling-nodes",), krita(n)) for n in (2, 3)),
    *(
        Case(f"prompt-control, {name}", ("comfyui-prompt-control",), prompts=prompt_control(batched))
        for name, batched in (("negative apart", False), ("negative in the call", True))
    ),
    Case("RAUNet", ("comfyui_jankhidiffusion",), jank("ApplyRAUNetSimple"), size=(32, 32)),
    Case("MSW-MSA", ("comfyui_jankhidiffusion",), jank("ApplyMSWMSAAttentionSimple"), size=(32, 32)),
    *(
        Case(
            f"{method} at {size[0]}x{size[1]}, {n} tiles a call",
            ("ComfyUI-TiledDiffusion",),
            tiled(method, n),
            size=size,
        )
        for method, size in (
            ("MultiDiffusion", WIDE),
            ("Mixture of Diffusers", WIDE),
            ("SpotDiffusion", WIDE),
            ("SpotDiffusion", (28, 28)),
        )
        for n in (1, 4)
    ),
    Case("ConditioningSetArea", (), prompts=area_prompts, size=(16, 24)),
    Case("context windows of the host", (), windows(), pictures=8),
    Case("context windows, first frame retained", (), windows(latent_retain_index_list="0"), pictures=8),
    Case("windows of AnimateDiff-Evolved", ("ComfyUI-AnimateDiff-Evolved",), animate, pictures=8),
    Case(
        "InstantID",
        ("ComfyUI_InstantID",),
        images.joined("ComfyUI_InstantID", "InstantID.InstantID", "_set_model_patch_replace", "ipadapter"),
    ),
    Case(
        "PuLID",
        ("PuLID_ComfyUI",),
        images.joined("PuLID_ComfyUI", "ComfyUI.pulid", "set_model_patch_replace", "pulid"),
    ),
    Case(
        "PLADIS and attention couple, ppm, 3 texts",
        (PERTURBED, "ComfyUI-ppm"),
        chain(perturbed("PLADIS"), ppm(3)),
    ),
    Case(
        "attention couple, ppm, 3 texts, and MultiDiffusion, 1 tile a call",
        ("ComfyUI-ppm", "ComfyUI-TiledDiffusion"),
        chain(ppm(3), tiled("MultiDiffusion", 1)),
        size=WIDE,
    ),
    Case(
        "ConditioningSetArea and MultiDiffusion, 4 tiles a call",
        ("ComfyUI-TiledDiffusion",),
        tiled("MultiDiffusion", 4),
        prompts=area_prompts,
        size=(16, 28),
    ),
    Case(
        "NAG (sampler) and MultiDiffusion, 1 tile a call",
        (NAG, "ComfyUI-TiledDiffusion"),
        tiled("MultiDiffusion", 1),
        nag_sampler,
        size=WIDE,
    ),
    Case("NAG (sampler), SDXL", (NAG,), sample=nag_sampler, family=tiny.SDXL),
    Case("attention couple, ppm, 3 texts, SDXL", ("ComfyUI-ppm",), ppm(3), family=tiny.SDXL),
    Case("PLADIS, SDXL", (PERTURBED,), perturbed("PLADIS"), family=tiny.SDXL),
    Case("IPAdapter Advanced of the de-facto pack", ("ComfyUI_IPAdapter_plus",), images.de_facto),
]
