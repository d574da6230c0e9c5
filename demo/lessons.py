"""The toy world as something to train adapters on: its models as a base, its scenes as encoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.spec import Variant
from ..ipadapter_core.training.batches import Frame, frame
from ..ipadapter_core.training.recipe import Recipe
from ..nodes.host import HostBase
from ..training.encoded import Rows, TextRows
from . import text, toy, world

SIDE = world.SIZE
FRAME: Frame = frame((SIDE, SIDE), [(SIDE, SIDE)])


class ToyClip:
    """The toy caption language behind the two calls of a host's CLIP."""

    def tokenize(self, caption: str) -> str:
        return caption

    def encode_from_tokens(self, caption: str, return_pooled: bool) -> tuple[Tensor, None]:
        return toy.encode_text(caption)[0][0], None


class ToyBase(HostBase):
    """The toy model with its encoders."""

    def __init__(self, model: Any = None):
        super().__init__(model or toy.load_model(), toy.load_vae(), ToyClip(), toy.load_clip_vision())


class Scenery:
    """Encoded scenes, as the trainer asks for them. Latents are the world's own, which the toy VAE learnt to paint.

    words: part of the caption's words that are told; real captions leave most of a picture untold.
    """

    def __init__(self, base: ToyBase, kind: Variant, scenes: world.Scenes, words: float = 0.3, seed: int = 0):
        self.base, self.frames = base, [FRAME] * len(scenes)
        pictures = world.render(scenes).movedim(1, -1)
        ids = torch.stack([text.tokenize(caption) for caption in world.captions(scenes)])
        kept = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < words
        table = text.TextEncoder()
        table.load_state_dict(toy.weights("text.safetensors"))
        with torch.no_grad():
            context = table(torch.where(kept, ids, text.PAD))
            nothing = table(torch.full((1, text.TOKENS), text.PAD))
        features = torch.cat([base.features(kind, part) for part in pictures.split(64)])
        self.rows: Rows = {"latents": world.latents(scenes), "features": features, "context": context}
        self.no_text, self.no_image = TextRows(nothing, None), base.no_features(kind)

    def expect(self, numbers: Sequence[int]) -> None: ...

    def batch(self, numbers: Sequence[int]) -> tuple[Rows, list[Frame]]:
        index = torch.tensor(list(numbers))
        return {name: rows[index] for name, rows in self.rows.items()}, [FRAME] * len(index)


def recipe(**more: Any) -> Recipe:
    """The paper's, but for the learning rate and the batch, which fit so small a world."""
    return Recipe.of({"steps": 300, "batch_size": 32, "learning_rate": 2e-3, **more})
