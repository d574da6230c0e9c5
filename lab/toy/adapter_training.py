"""The toy world for training adapters: its models as a base, its scenes as encoded pictures, its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...host import HostBase
from ...host.training_transformers import TransformerBase
from ...ipadapter_core.checkpoint import read_checkpoint
from ...ipadapter_core.families.table import family_of
from ...ipadapter_core.spec import Variant
from ...ipadapter_core.training.base import Texts
from ...ipadapter_core.training.batches import CropInfo, crop_info
from ...ipadapter_core.training.config import TrainingConfig
from ...ipadapter_core.training.export import save_adapter
from ...ipadapter_core.training.noise import View
from ...ipadapter_core.training.trainable import new_trainable, trainable_from
from ...training.cache import Rows
from ...training.callbacks import Callback, Step
from ...training.loop import Output, Trainer
from . import flux_models, text, world
from . import models as toy
from .config import WEIGHTS

SIDE, LR = world.SIZE, 2e-3
CROP: CropInfo = crop_info((SIDE, SIDE), [(SIDE, SIDE)])


class ToyClip:
    """The toy text encoder with the two methods of a host's CLIP."""

    def __init__(self, folder: Path):
        self.folder = folder

    def tokenize(self, caption: str) -> str:
        return caption

    def encode_from_tokens(self, caption: str, return_pooled: bool) -> tuple[Tensor, Tensor | None]:
        return toy.encode_text(caption, self.folder)[0][0], None


class ToyBase(HostBase):
    """The toy model with its encoders, from the weights in a folder."""

    def __init__(self, model: Any = None, folder: Path = WEIGHTS):
        parts = toy.load_vae(folder), ToyClip(folder), toy.load_clip_vision(folder)
        super().__init__(model or toy.load_model(folder), *parts)

    def as_texts(self, words: Tensor) -> Texts:
        """Vectors of words (n, 5, 64) as this model reads them."""
        return Texts(toy.as_context(words), None)


class PartlySteered(ToyBase):
    """In some steps the image steers the blocks of composition alone, or those of style, so that each learns its own."""

    COMPOSITION, STYLE = 0.25, 0.1

    def predict(
        self, noisy: Tensor, timesteps: Tensor, texts: Texts, crops: Sequence[CropInfo], pairs: Any
    ) -> Tensor:
        chance, family = torch.rand(()).item(), family_of(self.sites)
        if chance < self.COMPOSITION + self.STYLE:
            factors = family.composition if chance < self.COMPOSITION else family.style
            weights = (factors.get(site.label, 0.0) for site in self.sites)
            pairs = tuple((k, v * weight) for (k, v), weight in zip(pairs, weights, strict=True))
        return super().predict(noisy, timesteps, texts, crops, pairs)


class PooledClip(ToyClip):
    """As the transformer reads captions: with the mean of the words."""

    def encode_from_tokens(self, caption: str, return_pooled: bool) -> tuple[Tensor, Tensor]:
        [[words, more]] = flux_models.encode_text(caption, self.folder)
        return words, more["pooled_output"]


class ToyTransformer(TransformerBase):
    """As ToyBase, with the toy transformer."""

    def __init__(self, folder: Path = WEIGHTS):
        parts = toy.load_vae(folder), PooledClip(folder), toy.load_clip_vision(folder)
        super().__init__(flux_models.model_to_train_on(folder), *parts)

    def as_texts(self, words: Tensor) -> Texts:
        return Texts(words, text.pooled(words))


class EncodedScenes:
    """Encoded scenes, as the trainer reads them. Latents are the world's own, which the toy VAE was trained to decode.

    words: part of the caption's words that is kept; real captions leave out most of a picture.
    """

    def __init__(
        self,
        base: ToyBase | ToyTransformer,
        kind: Variant,
        scenes: world.Scenes,
        words: float = 0.3,
        seed: int = 0,
    ):
        self.base, self.crops, self.shares = base, [CROP] * len(scenes), ()
        pictures = world.render(scenes).movedim(1, -1)
        ids = torch.stack([text.tokenize(caption) for caption in world.captions(scenes)])
        kept = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < words
        table = toy.load_text(base.clip.folder)
        texts = base.as_texts(table(torch.where(kept, ids, text.PAD)))
        features = torch.cat([base.features(kind, part) for part in pictures.split(64)])
        self.rows: Rows = {"latents": world.latents(scenes), "features": features, "context": texts.context}
        self.rows |= {} if texts.pooled is None else {"pooled": texts.pooled}
        self.no_text = base.as_texts(table(torch.full((1, text.TOKENS), text.PAD)))
        self.no_image = base.no_features(kind)

    def prefetch(self, numbers: Sequence[int], views: Sequence[View] = ()) -> None: ...

    def batch(self, numbers: Sequence[int], views: Sequence[View] = ()) -> tuple[Rows, list[CropInfo]]:
        index = torch.tensor(list(numbers))
        return {name: rows[index] for name, rows in self.rows.items()}, [CROP] * len(index)


def training_config(**more: Any) -> TrainingConfig:
    """The paper's, but for the learning rate and the batch size, which fit so small a world."""
    return TrainingConfig.from_dict({"steps": 300, "batch_size": 32, "learning_rate": LR, **more})


class ProgressBar(Callback):
    """A line in the terminal."""

    def __init__(self, name: str, steps: int):
        self.bar = tqdm(total=steps, desc=name, unit="step", leave=False, mininterval=5)

    def on_step_end(self, step: Step) -> None:
        self.bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
        self.bar.update()


def unet_config(steps: int, seed: int) -> TrainingConfig:
    """Of the toy adapter on the UNet."""
    return _averaged(
        steps, seed, batch_size=16, min_snr=0.5
    )  # what a picture shows is decided where there is much noise


def transformer_config(steps: int, seed: int) -> TrainingConfig:
    """Of the toy adapter on the transformer: XLabs' kind, K' and V' of the double blocks."""
    return _averaged(steps, seed, kind="xlabs")


def _averaged(steps: int, seed: int, **more: Any) -> TrainingConfig:
    return training_config(steps=steps, seed=seed, schedule="cosine", warmup=steps // 20, ema=0.99, **more)


def train_adapter(
    base: ToyBase | ToyTransformer,
    config: TrainingConfig,
    path: Path,
    scenes: world.Scenes,
    resume: bool,
    states: Path,
) -> None:
    """An adapter by the pack's own trainer, which goes on from its last state in `states`, for the file at `path`.

    resume: from that file, where there is no state.
    """
    data = EncodedScenes(base, config.kind, scenes)
    if resume:
        trainable = trainable_from(read_checkpoint(path), config, base.sites)
    else:
        trainable = new_trainable(config, base.unet, base.sites, data.no_image.shape[-1])
    trainer = Trainer(config, base, data, trainable, Output(states, every=100))
    trainer.resume()
    trainer.run(ProgressBar(path.stem, config.steps))
    averaged = read_checkpoint(trainer.path(trainer.number, "-ema"))
    save_adapter(averaged, path, dtype=torch.float16)
