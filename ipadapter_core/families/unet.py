"""UNets: SD1.5, SD2.x, SDXL, those pruned of SDXL's sites, and Kolors; as ComfyUI and as diffusers name their blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from ..errors import MismatchError
from .family import Architecture, BlockFactors, Counts, Family
from .site import Exchanged, Site
from .weights import weight_of

# 'input_blocks.4.1.transformer_blocks.0' or 'middle_block.1.transformer_blocks.9', of ComfyUI's openaimodel.py
_HOST = re.compile(r"^(input|middle|output)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)$")
# the same in a file, whose middle block has no number of its own
_CHECKPOINT = re.compile(r"^(input|middle|output)_blocks?\.(?:(?<=s\.)(\d+)\.)?\d+\.transformer_blocks\.\d+$")
_KEY = "attn2.to_k.weight"
# 'down_blocks.1.attentions.0.transformer_blocks.0' or 'mid_block.attentions.0.transformer_blocks.9', of diffusers
_DIFFUSERS = re.compile(r"^(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)$")
_STAGES = {"down": "input", "mid": "middle", "up": "output"}
_RUN = ("input", "middle", "output")
# Released files number the sites as diffusers does: down, up, middle last (list(unet.attn_processors)).
_FILE = ("input", "output", "middle")
Block = tuple[str, int, int]  # stage, number of the block, depth inside it


def find_sites(network: nn.Module, exchanged: Exchanged) -> tuple[Site, ...]:
    """Every text cross-attention in file order: 16 for SD1.5, 70 for SDXL.

    Raises MismatchError where an attention was exchanged for something that is none.
    """
    found: list[tuple[Block, str, Any]] = []
    for path, module in network.named_modules():
        attention = getattr(module, "attn2", None)
        block = _block_of(network, path.replace("_orig_mod.", ""))  # that somebody compiled one by one
        if block and attention is not None:
            attention = exchanged(f"{path}.attn2", attention)
            _require_attention(attention, path)
            found.append((block, path, attention))
    blocks = sorted({block[:2] for block, _, _ in found}, key=lambda b: (_RUN.index(b[0]), b[1]))
    sites = {
        block: _site(block, blocks.index(block[:2]), path, attention) for block, path, attention in found
    }
    return tuple(sites[block] for block in sorted(sites, key=lambda b: (_FILE.index(b[0]), *b[1:])))


def blocks_in_file(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, ...], int, int]:
    """(labels of the blocks in the order in which the model runs them, context width, number of sites) of a checkpoint's
    keys; no labels where it is of no UNet."""
    paths = {
        key.split("diffusion_model.")[-1].partition(".attn2.to_k.weight")[0]: key
        for key in shapes
        if _KEY in key
    }
    found = {
        (match[1], int(match[2] or 0)): key
        for path, key in paths.items()
        if (match := _CHECKPOINT.match(path))
    }
    labels = tuple(_label(*block) for block in sorted(found, key=lambda b: (_RUN.index(b[0]), b[1])))
    sites = sum(bool(_CHECKPOINT.match(path)) for path in paths)
    return labels, (shapes[next(iter(found.values()))][-1] if found else 0), sites


def _site(block: Block, run_index: int, path: str, attention: Any) -> Site:
    widths = attention.to_q.out_features, attention.to_k.in_features
    return Site(
        _label(*block[:2]), block[0], run_index, block[2], *widths, getattr(attention, "heads", 0), path
    )


def _label(stage: str, number: int) -> str:
    return stage if stage == "middle" else f"{stage} {number}"


def _block_of(network: nn.Module, path: str) -> Block | None:
    """Which transformer block a path names; the middle one has number 0."""
    if match := _HOST.match(path):
        return match[1], 0 if match[1] == "middle" else int(match[2]), int(match[3])
    if match := _DIFFUSERS.match(path):
        stage = _STAGES[match[1]]
        return stage, _number_in_host(network, match), int(match[4])
    return None


def _number_in_host(network: nn.Module, match: re.Match[str]) -> int:
    """Of the block in ComfyUI's numbering, which counts convolutions in and out of the stages too."""
    if match[1] == "mid":
        return 0
    stages = cast("Any", network.get_submodule(f"{match[1]}_blocks"))
    before = sum(len(stages[stage].resnets) + (match[1] == "down") for stage in range(int(match[2])))
    return before + int(match[3]) + (match[1] == "down")


def _require_attention(attention: nn.Module, path: str) -> None:
    missing = [part for part in ("to_q", "to_k", "to_v", "to_out") if not hasattr(attention, part)]
    if missing:
        raise MismatchError(
            f"the cross-attention of {path} is a {type(attention).__name__}, which another node put there and which has no "
            f"{missing[0]}: an image prompt cannot be added to it. Use the image prompt without that node."
        )


def _text_matrices(network: nn.Module, site: Site) -> tuple[Tensor, Tensor]:
    attention: Any = network.get_submodule(f"{site.path}.attn2")
    return weight_of(attention.to_k), weight_of(attention.to_v)


def token_grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """(h, w) of a site with `tokens` queries in a latent of (height, width): the UNet halves, rounding up.

    Where a node rescales inside the UNet, the factors of `tokens` nearest the picture's aspect ratio.
    """
    h, w = height, width
    while h * w > tokens:
        h, w = -(-h // 2), -(-w // 2)
    if h * w == tokens:
        return h, w
    pairs = [(h, tokens // h) for h in range(1, tokens + 1) if tokens % h == 0]
    return min(pairs, key=lambda pair: abs(pair[0] / pair[1] - height / width))


def _positions(*blocks: tuple[str, tuple[int, ...], int]) -> Iterator[tuple[str, int]]:
    return ((_label(stage, n), d) for stage, numbers, depth in blocks for n in numbers for d in range(depth))


_SD15_POSITIONS = _positions(
    ("input", (1, 2, 4, 5, 7, 8), 1), ("output", (3, 4, 5, 6, 7, 8, 9, 10, 11), 1), ("middle", (0,), 1)
)
_SDXL_POSITIONS = _positions(
    ("input", (4, 5), 2),
    ("input", (7, 8), 10),
    ("output", (0, 1, 2), 10),
    ("output", (3, 4, 5), 2),
    ("middle", (0,), 10),
)


def _unnamed(context_width: int, counts: Counts) -> Family:
    """A UNet that is in no row: what follows from its context width."""
    site_count = sum(counts)
    name = f"UNet with {site_count} cross-attentions of context width {context_width}"
    more = _LIKE_SDXL if context_width == SDXL.context_width else {}
    return Family(name, UNET, context_width, site_count, **more)


UNET = Architecture(
    "UNet",
    find_sites,
    lambda index: 2 * index + 1,  # the even numbers are those of self-attention
    {16: tuple(_SD15_POSITIONS), 70: tuple(_SDXL_POSITIONS)},
    _text_matrices,
    token_grid,
    _unnamed,
)

_SD15 = [f"input {n}" for n in (1, 2, 4, 5, 7, 8)] + ["middle"] + [f"output {n}" for n in range(3, 12)]
_SDXL = [f"input {n}" for n in (4, 5, 7, 8)] + ["middle"] + [f"output {n}" for n in range(6)]


def _all_but(labels: list[str], *others: str) -> BlockFactors:
    return {label: 1.0 for label in labels if label not in others}


# InstantStyle (arXiv 2404.02733): SDXL's up_blocks.0.attentions.1 carries style, down_blocks.2.attentions.1 layout.
_STYLE_OF_SDXL: dict[str, Any] = {
    "style": {"output 1": 1.0},
    "composition": {"input 8": 1.0},
    "strong_style": _all_but(_SDXL, "input 8"),
}
# SD1.5 has no such single block; these sets are those that users know from the de-facto pack.
_STYLE_OF_SD15: dict[str, Any] = {
    "style": _all_but(_SD15, *_SD15[4:9]),
    "composition": {"input 7": 0.25, "input 8": 1.0},
    "strong_style": _all_but(_SD15, "input 7", "input 8"),
}
_LIKE_SDXL: dict[str, Any] = {"face_crop": 256, "resampler_width": 1280, "learns_in_bf16": False}

SD15 = Family("SD1.5", UNET, 768, 16, **_STYLE_OF_SD15)
SD2 = Family("SD2.x", UNET, 1024, 16)
SDXL = Family("SDXL", UNET, 2048, 70, **_STYLE_OF_SDXL, **_LIKE_SDXL)
# SDXL's sites, behind a projection of ChatGLM3's text
KOLORS = Family("Kolors", UNET, 2048, 70, projects_context=True, **_STYLE_OF_SDXL, **_LIKE_SDXL)
FAMILIES = (
    SD15,
    SD2,
    KOLORS,
    SDXL,
    # pruned of SDXL's sites, with the names of those that are left
    Family("SSD-1B", UNET, 2048, 34, "SDXL", **_STYLE_OF_SDXL, **_LIKE_SDXL),
    Family("Segmind Vega", UNET, 2048, 15, "SDXL", **_STYLE_OF_SDXL, **_LIKE_SDXL),
    Family("KOALA-700M", UNET, 2048, 21, **_LIKE_SDXL),
    Family("KOALA-1B", UNET, 2048, 30, **_LIKE_SDXL),
)
