"""The toy caption language: five slots, one token each, and a table of learned vectors.

A word's vector has two halves: that of a shape is in the first, that of anything else in the second. So a block of the
UNet can be made to read the one or the other (networks.restrict).
"""

import torch
from torch import Tensor, nn

from .config import UNET
from .world import COLOURS, PATTERNS, SHAPES, TONES

PAD = 0
_SLOTS = {"colour": COLOURS, "shape": SHAPES, "pattern": PATTERNS, "tone": TONES, "ground": COLOURS}
_IDS = {word: i for i, word in enumerate(((s, w) for s, words in _SLOTS.items() for w in words), start=1)}
_FILLERS = ("a", "an", "the")
TOKENS = len(_SLOTS)


def tokenize(caption: str) -> Tensor:
    """'red star on striped pale blue' -> ids (5,); any part may be missing, '' is all padding.

    Raises ValueError on a word outside the vocabulary.
    """
    words = scene_of(caption)
    return torch.tensor([_IDS[slot, words[slot]] if slot in words else PAD for slot in _SLOTS])


def scene_of(caption: str) -> dict[str, str]:
    """The words of a caption by what they say: colour, shape, pattern, tone, ground. Raises as tokenize."""
    words: dict[str, str] = {}
    on_ground = False
    for word in caption.lower().replace(",", " ").split():
        if word == "on":
            on_ground = True
        elif word not in _FILLERS:
            words[_slot_of(word, on_ground)] = word
    return words


def drop_tokens(ids: Tensor, each: float, whole: float) -> Tensor:
    """Ids (n, 5) with single tokens and whole captions replaced by padding at random."""
    gone = (torch.rand(ids.shape) < each) | (torch.rand(len(ids), 1) < whole)
    return ids.masked_fill(gone, PAD)


def pooled(context: Tensor) -> Tensor:
    """Context (n, 5, 64) -> what the transformer reads of a caption as a whole (n, 64)."""
    return context.mean(1)


class TextEncoder(nn.Module):
    """Ids (n, 5) -> context (n, 5, 64)."""

    halves: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(_IDS) + 1, UNET.words)
        halves = torch.zeros(len(_IDS) + 1, 2)
        for (slot, _), number in _IDS.items():
            halves[number, int(slot != "shape")] = 1
        halves[PAD] = 1
        self.register_buffer("halves", halves.repeat_interleave(UNET.words // 2, dim=1), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) * self.halves[ids]


def _slot_of(word: str, on_ground: bool) -> str:
    slots = [s for s, words in _SLOTS.items() if word in words and (s == "ground") <= on_ground]
    if not slots:
        known = " ".join((*COLOURS, *SHAPES, "on", *PATTERNS, *TONES))
        raise ValueError(f"the toy world does not know the word '{word}'. It knows: {known}")
    return slots[-1]
