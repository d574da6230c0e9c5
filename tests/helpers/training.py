"""A small base model to train on, with stand-in encoders of pictures and texts, and a callback that remembers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from image_prompt.host import training as host_training
from image_prompt.host.training import HostBase
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.trainable import new_trainable
from image_prompt.training.callbacks import Callback, Step
from image_prompt.training.encoded import Encodings
from image_prompt.training.loop import Output, Trainer
from image_prompt.training.pictures import Pictures, from_tensors
from PIL import Image
from support import tiny
from torch import Tensor

SIZES = [(64, 64)]


class ShrinkingVae:
    """Latents are pictures, eight times smaller."""

    def encode(self, pictures: Tensor) -> Tensor:
        small = F.avg_pool2d(pictures.movedim(-1, 1), 8) * 8 - 4
        return torch.cat((small, small.mean(1, keepdim=True)), dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return (F.interpolate(latents[:, :3] / 8 + 0.5, scale_factor=8).clamp(0, 1)).movedim(1, -1)


class SeededClip:
    """A text encoder whose output is seeded by the letters."""

    def __init__(self, family: tiny.Family):
        self.family = family

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[Tensor, Tensor | None]:
        seed = zlib.crc32(tokens.encode())
        pooled = torch.randn(1, 1280, generator=torch.Generator().manual_seed(seed))
        return tiny.conditioning(self.family, seed)[0], pooled if self.family.adm else None


class TinyBase(HostBase):
    """The host's small UNet and CLIP vision encoder, with stand-ins for the VAE and the text encoder."""

    def __init__(self, family: tiny.Family, model: Any, clip_vision: Any):
        super().__init__(model, ShrinkingVae(), SeededClip(family), clip_vision)
        self.family = family


@contextmanager
def faces_of_colour(base: HostBase) -> Iterator[None]:
    """A face in every picture, known by the picture's mean colour; in a dark one there is none."""

    def detect(picture, analysis, query):
        if picture.mean() < 0.2:
            raise SettingError("no face was found in picture 1.")
        embedding = F.normalize(picture.mean((1, 2)).repeat(1, 171)[:, :512] - 0.4, dim=-1)
        return SimpleNamespace(embeddings=lambda normalise: embedding), ""

    own, base.faces = base.faces, object()
    try:
        with patch.object(host_training, "detect_faces", detect):
            yield
    finally:
        base.faces = own


class Remembers(Callback):
    """A callback. stop_after: asks to stop after so many steps of this run; raise_after: raises instead."""

    def __init__(self, stop_after: int = 0, raise_after: int = 0):
        self.stop_after, self.raise_after = stop_after, raise_after
        self.steps: list[Step] = []
        self.files: list[Path] = []

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def should_stop(self) -> bool:
        return bool(self.stop_after) and len(self.steps) >= self.stop_after

    def on_step_end(self, step: Step) -> None:
        self.steps.append(step)
        if len(self.steps) == self.raise_after:
            raise KeyboardInterrupt

    def on_save(self, path: Path, step: int) -> None:
        self.files.append(path)


def captioned(count: int = 6) -> Pictures:
    pictures = tiny.picture(5, 64, 64, count=count)
    return from_tensors([pictures], [f"picture of {number}" for number in range(count)])


def trainer(
    config: TrainingConfig, base: Any, folder: Path, pictures: Pictures | None = None, **more: Any
) -> Trainer:
    data = Encodings(base, config, pictures or captioned(), SIZES, {})
    trainable = new_trainable(config, base.model.model.diffusion_model, base.sites, data.feature_width)
    return Trainer(config, base, data, trainable, Output(folder, every=0), **more)


CONFIG = TrainingConfig(steps=2, batch_size=2, seed=5)


def changed(**more):
    return TrainingConfig.from_dict({**CONFIG.to_dict(), **more})


def saved(path, seed, side=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (tiny.picture(seed, side, side)[0] * 255).round().to(torch.uint8)
    Image.fromarray(values.numpy()).save(path)


def picture_folder(folder: Path) -> Path:
    """Three pictures with captions of two lines, and a face for each."""
    for number in range(3):
        saved(folder / f"{number}.png", number)
        saved(folder / "faces" / f"{number}.png", 10 + number, 32)
        (folder / f"{number}.txt").write_text(f"line one of {number}\nline two")
    return folder
