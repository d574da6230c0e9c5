"""Captions as plain tokens of weight 1: texts that people wrote of pictures, not prompts with a syntax."""

from __future__ import annotations

import re
from typing import Any

# of a caption for CLIP; longer ones are cut, as by the reference's tokenizer
TEXT_TOKENS = 77
# of a caption for an encoder that gives each as many tokens as it has
MOST_TOKENS = 512


def plain_tokens(clip: Any, caption: str) -> Any:
    """Tokens for the host's CLIP: those of transformers' own tokenizers, for which parentheses, brackets, backslashes and
    'embedding:' are ordinary characters. Of T5 as many as the host gives a short prompt: 256 for Flux, 77 for SD3; elsewhere
    (Chroma, Lumina 2) as many as the caption has. Models that read a chat (Qwen-Image, Z-Image) get the host's, in which it
    knows no weights."""
    if hasattr(getattr(clip, "tokenizer", None), "llama_template"):
        # weights it does not know, but takes a backslash from a parenthesis
        return clip.tokenize(_without_embeddings(re.sub(r"\\([()])", r"\\\\\1", caption)))
    parts = _tokenizers(clip)
    # another pack's CLIP: only its own call is known, so the host's syntax is escaped
    if not parts:
        return clip.tokenize(_escaped(caption))
    return {name: [_padded(part, caption)] for name, part in parts.items()}


def _tokenizers(clip: Any) -> dict[str, Any]:
    """The host's tokenizers by the names under which the text encoder expects their tokens; empty for another pack's."""
    holder = getattr(clip, "tokenizer", None)
    names = list(clip.tokenize("")) if holder is not None else []
    found = {name: getattr(holder, f"clip_{name}", None) or getattr(holder, name, None) for name in names}
    known = all(callable(getattr(part, "tokenizer", None)) for part in found.values())
    return found if known else {}


def _padded(part: Any, caption: str) -> list[tuple[int, float]]:
    """(token, weight) of the start, the caption, the end, and padding."""
    fixed = getattr(part, "pad_to_max_length", True)
    length = TEXT_TOKENS if fixed else getattr(part, "min_length", None) or TEXT_TOKENS
    if length == 1:
        ids = part.tokenizer(caption)["input_ids"]
        return [(token, 1.0) for token in ids[: MOST_TOKENS - 1] + ids[MOST_TOKENS - 1 :][-1:]]
    ids = part.tokenizer(caption, truncation=True, max_length=length)["input_ids"]
    return [(token, 1.0) for token in [*ids, *[part.pad_token] * (length - len(ids))]]


def _escaped(caption: str) -> str:
    """In the host's prompt syntax. CLIP's own tokenizer separates words from signs, so the space changes no token."""
    return _without_embeddings(re.sub(r"([()])", r"\\\1", caption))


def _without_embeddings(text: str) -> str:
    return text.replace("embedding:", "embedding :")
