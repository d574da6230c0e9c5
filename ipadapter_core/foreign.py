"""Adapters of other methods and models that are recognised by their keys and not run here: what they are, what to use."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shape = tuple[int, ...]
Pattern = str | tuple[str, Shape]
_ANIMA = (
    "an image prompt adapter for Anima, which is not run here: ComfyUI has no loader for the encoder that it reads. Use "
    "its project's own node, or an adapter for SD1.5, SDXL, Kolors or Flux.1."
)

# First match wins; one without a sentence is ours. All patterns of a row must be found among the keys, each in any of them,
# with its shape where one stands beside it; those that begin with '!' in none.
_ROWS: tuple[tuple[tuple[Pattern, ...], str], ...] = (
    (("ip_centroid",), _ANIMA),
    ((r"\bip_gate\.0$",), _ANIMA),
    ((r"ip_cross_attns\.",), _ANIMA),
    (
        ("kv_proj_ip_adapter",),
        "an IP-Adapter for HunyuanDiT, which is not run here: the encoder that it reads is in a file that ComfyUI does not "
        "load. Use an adapter for SD1.5, SDXL, Kolors or Flux.1.",
    ),
    (
        (r"\bredux_up\.",),
        "a Flux Redux model, which is no IP-Adapter. Put it in models/style_models and use ComfyUI's own nodes Load Style "
        "Model and Apply Style Model.",
    ),
    (
        (r"pulid_encoder\.",),
        "a PuLID adapter for Flux, which changes the model in a way of its own. Use a PuLID pack for it.",
    ),
    (
        ("high_embedding_linear",),
        "a USO projector, which is no IP-Adapter. Put it in models/model_patches and use ComfyUI's own node USO Style "
        "Reference.",
    ),
    (
        ("add_k_proj_ip",),
        "an IP-Adapter-Instruct for SD3, which hands a stream of its own from block to block; that is not run here. Use "
        "that project's own code.",
    ),
    ((r"norm_ip\.linear",), ""),  # of InstantX for SD3.5, which runs here
    (
        (r"\b0\.norm_ip_q\.",),
        "an InstantCharacter adapter for Flux, which reads two encoders at several layers; that is not run here. Use that "
        "project's own code.",
    ),
    (
        # of this pack's own layout the number stands behind a name and a dash
        (r"(?<!-)\b0\.to_k_ip\.", r"image_proj\.latents$"),
        "a Flux adapter of ai-toolkit, which is not run here: the file does not say which layer of which encoder it was "
        "trained with. Use an adapter of XLabs or InstantX.",
    ),
    (
        (r"image_proj\.latents$", (r"image_proj\.proj_in\.weight$", (1280, 512)), "!to_[kv]_ip"),
        "the image projection of InfiniteYou for Flux, which hands faces to a ControlNet of its own and not to attention. "
        "Use that project's own code or an InfiniteYou pack.",
    ),
)

# The longest part of each that stands in a key as it stands here: looking for it is far cheaper than a search.
_LITERAL = {
    plain: max(re.split(r"\\b|\$|\[\w+\]", plain), key=len).replace("\\.", ".")
    for patterns, _ in _ROWS
    for pattern in patterns
    for plain in ((pattern if isinstance(pattern, str) else pattern[0]).removeprefix("!"),)
}


def foreign(shapes: Mapping[str, Shape]) -> str | None:
    """What a file with these keys is, as the end of a sentence, and what to use; None where it is none of these."""
    lines = "\n".join(shapes)  # one search a pattern, not one a key
    found = (what for patterns, what in _ROWS if all(_fits(each, lines, shapes) for each in patterns))
    return next(found, "") or None


def _fits(pattern: Pattern, lines: str, shapes: Mapping[str, Shape]) -> bool:
    text, shape = pattern if isinstance(pattern, tuple) else (pattern, None)
    plain = text.removeprefix("!")
    found = _LITERAL[plain] in lines and re.search(plain, lines, re.MULTILINE) is not None
    if shape is not None:
        return found and any(shapes[key] == shape and re.search(text, key) for key in shapes)
    return found is not text.startswith("!")
