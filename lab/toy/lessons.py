"""The toy world as something to train adapters on: its models as a base, its scenes as encoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...host import HostBase
from ...ipadapter_core.checkpoint import read_checkpoint
from ...ipadapter_core.spec import Variant
from ...ipadapter_core.training.base import Texts
from ...ipadapter_core.training.batches import Frame, frame
from ...ipadapter_core.training.export import save_adapter
from ...ipadapter_core.training.recipe import Recipe
from ...ipadapter_core.training.trainee import new_trainee, trainee_from
from ...training.encoded import Rows
from ...training.loop import Output, Step, Trainer, Watcher
from . import models as toy
from . import text, world
from .config import WEIGHTS

SIDE, RATE = world.SIZE, 2e-3
FRAME: Frame = frame((SIDE, SIDE), [(SIDE, SIDE)])


class ToyClip:
    """The toy caption language behind the two calls of a host's CLIP."""

    def __init__(self, folder: Path):
        self.folder = folder

    def tokenize(self, caption: str) -> str:
        return caption

    def encode_from_tokens(self, caption: str, return_pooled: bool) -> tuple[Tensor, None]:
        return toy.encode_text(caption, self.folder)[0][0], None


class ToyBase(HostBase):
    """The toy model with its encoders, from the weights in a folder."""

    def __init__(self, model: Any = None, folder: Path = WEIGHTS):
        parts = toy.load_vae(folder), ToyClip(folder), toy.load_clip_vision(folder)
        super().__init__(model or toy.load_model(folder), *parts)


class Scenery:
    """Encoded scenes, as the trainer asks for them. Latents are the world's own, which the toy VAE learnt to paint.

    words: part of the caption's words that are told; real captions leave most of a picture untold.
    """

    def __init__(self, base: ToyBase, kind: Variant, scenes: world.Scenes, words: float = 0.3, seed: int = 0):
        self.base, self.frames = base, [FRAME] * len(scenes)
        pictures = world.render(scenes).movedim(1, -1)
        ids = torch.stack([text.tokenize(caption) for caption in world.captions(scenes)])
        kept = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < words
        table = toy.load_text(base.clip.folder)
        context = table(torch.where(kept, ids, text.PAD))
        nothing = table(torch.full((1, text.TOKENS), text.PAD))
        features = torch.cat([base.features(kind, part) for part in pictures.split(64)])
        self.rows: Rows = {"latents": world.latents(scenes), "features": features, "context": context}
        self.no_text, self.no_image = Texts(nothing, None), base.no_features(kind)

    def expect(self, numbers: Sequence[int]) -> None: ...

    def batch(self, numbers: Sequence[int]) -> tuple[Rows, list[Frame]]:
        index = torch.tensor(list(numbers))
        return {name: rows[index] for name, rows in self.rows.items()}, [FRAME] * len(index)


def recipe(**more: Any) -> Recipe:
    """The paper's, but for the learning rate and the batch, which fit so small a world."""
    return Recipe.of({"steps": 300, "batch_size": 32, "learning_rate": RATE, **more})


class Bar(Watcher):
    """A line in the terminal."""

    def __init__(self, name: str, steps: int):
        self.bar = tqdm(total=steps, desc=name, unit="step", leave=False, mininterval=5)

    def stepped(self, step: Step) -> None:
        self.bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
        self.bar.update()


def train_adapter(
    folder: Path, path: Path, scenes: world.Scenes, steps: int, seed: int, resume: bool
) -> None:
    """The toy adapter on the base in `folder`, by the pack's own trainer. resume: from the file at `path`."""
    base = ToyBase(folder=folder)
    wanted = recipe(steps=steps, seed=seed, schedule="cosine", warmup=steps // 20)
    data = Scenery(base, wanted.kind, scenes)
    if resume:
        trainee = trainee_from(read_checkpoint(path), wanted, base.sites)
    else:
        trainee = new_trainee(wanted, base.unet, base.sites, data.no_image.shape[-1])
    with TemporaryDirectory() as states:
        Trainer(wanted, base, data, trainee, Output(Path(states), every=0)).run(Bar("adapter", steps))
    save_adapter(trainee.checkpoint(path.stem), path, dtype=torch.float16)
