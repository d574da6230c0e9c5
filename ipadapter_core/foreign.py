"""Adapters of other methods and models that are recognised by their keys and not run here: what they are, what to use."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ANIMA = "an image prompt adapter for Anima, which is not run here: ComfyUI has no loader for the encoder that it reads."

# First match wins; one without a sentence is ours. All patterns of a row must be found among the keys, each in any of them.
_ROWS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ip_centroid",), _ANIMA),
    ((r"^ip_gate\.0$",), _ANIMA),
    ((r"ip_cross_attns\.",), _ANIMA),
    (
        ("kv_proj_ip_adapter",),
        "an IP-Adapter for HunyuanDiT, which is not run here: the encoder that it reads is in a file that ComfyUI does not "
        "load. Use an adapter for SD1.5, SDXL, Kolors or Flux.1.",
    ),
    (
        (r"^redux_up\.",),
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
        (r"\b0\.to_k_ip\.", r"image_proj\.latents$"),
        "a Flux adapter of ai-toolkit, whose formula is not that of a released adapter and which is not run here. Use one "
        "of XLabs or InstantX.",
    ),
)


def foreign(keys: Iterable[str]) -> str | None:
    """What a file with these keys is, as the end of a sentence, and what to use; None where it is none of these."""
    found = tuple(keys)
    for patterns, what in _ROWS:
        if all(any(re.search(pattern, key) for key in found) for pattern in patterns):
            return what or None
    return None
