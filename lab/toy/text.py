"""The toy caption language: four slots, one token each, and a table of learned vectors."""

import torch
from torch import Tensor, nn

from .config import UNET
from .world import COLOURS, SHAPES, TONES

PAD = 0
_SLOTS = {"colour": COLOURS, "shape": SHAPES, "tone": TONES, "ground": COLOURS}
_IDS = {word: i for i, word in enumerate(((s, w) for s, words in _SLOTS.items() for w in words), start=1)}
_FILLERS = ("a", "an", "the")
TOKENS = len(_SLOTS)


def tokenize(caption: str) -> Tensor:
    """'red star on pale blue' -> ids (4,); any part may be missing, '' is all padding.

    Raises ValueError on a word outside the vocabulary.
    """
    ids = [PAD] * TOKENS
    on_ground = False
    for word in caption.lower().replace(",", " ").split():
        if word == "on":
            on_ground = True
        elif word not in _FILLERS:
            slot = _slot_of(word, on_ground)
            ids[list(_SLOTS).index(slot)] = _IDS[slot, word]
    return torch.tensor(ids)


def drop_tokens(ids: Tensor, each: float, whole: float) -> Tensor:
    """Ids (n, 4) with single tokens and whole captions replaced by padding at random."""
    gone = (torch.rand(ids.shape) < each) | (torch.rand(len(ids), 1) < whole)
    return ids.masked_fill(gone, PAD)


class TextEncoder(nn.Module):
    """Ids (n, 4) -> context (n, 4, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(_IDS) + 1, UNET.context)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids)


def _slot_of(word: str, on_ground: bool) -> str:
    slots = [s for s, words in _SLOTS.items() if word in words and (s == "ground") <= on_ground]
    if not slots:
        known = " ".join((*COLOURS, *SHAPES, "on", *TONES))
        raise ValueError(f"the toy world does not know the word '{word}'. It knows: {known}")
    return slots[-1]
