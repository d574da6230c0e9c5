"""Where the paper's claims are tried: trains what a claim compares, once, and measures what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.sample
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ... import host
from ...host.frozen import frozen_copy
from ...ipadapter_core.checkpoint import Checkpoint
from ...ipadapter_core.features import Features
from ...ipadapter_core.prompt import Arrange
from ...ipadapter_core.spec import Variant
from ...ipadapter_core.training.recipe import Recipe
from ...ipadapter_core.training.trainee import Trainee, new_trainee
from ...training.loop import Output, Trainer, Watcher
from ..toy import lessons, world
from ..toy import models as toy

SCENES, HELD_OUT, REFERENCES = 4000, 31_415, 96
SLOWER = 5e-4  # learning rate of what is deep: the resampler, the whole UNet
Made = dict[str, Tensor]


class Concatenated(nn.Module):
    """The simple adapter of the paper's ablation: image tokens behind the text's, read by the frozen K and V."""

    def __init__(self, trainee: Trainee):
        super().__init__()
        self.adapter = trainee.adapter
        self.adapter.ip_adapter.requires_grad_(False)
        self.projection = self.adapter.image_proj

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(features)

    def parameters(self, recurse: bool = True):
        return self.projection.parameters(recurse)


class ConcatenatingBase(lessons.ToyBase):
    def predict(self, noisy: Tensor, timesteps: Tensor, texts: Any, frames: Any, pairs: Any) -> Tensor:
        longer = type(texts)(torch.cat((texts.context, pairs), dim=1), None)
        return super().predict(noisy, timesteps, longer, frames, ())


class Whole(nn.Module):
    """Adapter and UNet together: full fine-tuning. With no adapter, fine-tuning on text alone."""

    def __init__(self, unet: nn.Module, trainee: Trainee | None):
        super().__init__()
        self.unet, self.trainee = unet, trainee

    def forward(self, features: Tensor) -> Any:
        return self.trainee(features) if self.trainee else ()


class OpenBase(lessons.ToyBase):
    """Its UNet learns too."""

    def load(self, recomputing: bool) -> None:
        super().load(recomputing)
        self.unet.requires_grad_(True)


class Unsaved(Trainer):
    """The lab keeps what was trained itself; states to go on from are not needed."""

    def save(self, watcher: Watcher) -> int:
        return self.number


@dataclass
class Lab:
    """folder: where what was trained is kept; a run that is broken off goes on there."""

    folder: Path
    steps: int
    scenery: dict[Variant, lessons.Scenery] = field(default_factory=dict)

    @cached_property
    def base(self) -> lessons.ToyBase:
        return lessons.ToyBase()

    @cached_property
    def references(self) -> Tensor:
        """(n, 64, 64, 3), of scenes that no training saw."""
        return world.render(world.make_scenes(REFERENCES, HELD_OUT)).movedim(1, -1)

    def data(self, kind: Variant) -> lessons.Scenery:
        if kind not in self.scenery:
            self.scenery[kind] = lessons.Scenery(self.base, kind, world.make_scenes(SCENES, 7))
        return self.scenery[kind]

    # --- training ---

    def adapter(self, name: str, seed: int, **recipe: Any) -> host.HostAdapter:
        """Decoupled cross-attention, by the recipe with these changes."""
        made = self._kept(
            name, seed, lambda path: self._train(name, path, self.base, self._new, seed, **recipe)
        )
        return as_adapter(made)

    def concatenated(self, seed: int) -> host.HostAdapter:
        base = ConcatenatingBase(self.base.model)
        new = lambda recipe: Concatenated(self._new(recipe))  # noqa: E731
        return as_adapter(
            self._kept("concatenated", seed, lambda path: self._train("concatenated", path, base, new, seed))
        )

    def whole(self, seed: int) -> tuple[Any, host.HostAdapter]:
        """(model, adapter) after full fine-tuning of both."""
        base = OpenBase(self.base.model)
        new = lambda recipe: Whole(base.unet, self._new(recipe))  # noqa: E731
        made = self._kept(
            "full fine-tuning",
            seed,
            lambda path: self._train("full", path, base, new, seed, learning_rate=SLOWER),
        )
        return with_unet(self.base.model, made), as_adapter(made)

    def custom(self, seed: int) -> Any:
        """A model fine-tuned on scenes with deep grounds alone, without any adapter."""
        base = OpenBase(self.base.model)
        scenes = world.make_scenes(SCENES, 11)
        deep = scenes[scenes.tone == world.TONES.index("deep")]

        def train(path: Path) -> Made:
            data = lessons.Scenery(base, Variant.BASE, deep)
            new = lambda recipe: Whole(base.unet, None)  # noqa: E731
            return self._train("custom base", path, base, new, seed, data, learning_rate=SLOWER)

        return with_unet(self.base.model, self._kept("custom base", seed, train))

    def _new(self, recipe: Recipe) -> Trainee:
        width = self.data(recipe.kind).no_image.shape[-1]
        return new_trainee(recipe, self.base.model.model.diffusion_model, self.base.sites, width)

    def _train(
        self,
        name: str,
        path: Path,
        base: lessons.ToyBase,
        new: Callable[[Recipe], Any],
        seed: int,
        data: lessons.Scenery | None = None,
        **changes: Any,
    ) -> Made:
        recipe = lessons.recipe(steps=self.steps, seed=seed, **changes)
        trainee = new(recipe)
        trainer = Unsaved(recipe, base, data or self.data(recipe.kind), trainee, Output(path, every=0))
        trainer.run(lessons.Bar(f"{name}, seed {seed}", recipe.steps))
        return {key: tensor.detach().clone() for key, tensor in trainee.state_dict().items()}

    def _kept(self, name: str, seed: int, make: Callable[[Path], Made]) -> Made:
        path = self.folder / f"{name.replace(' ', '-')}-{seed}-{self.steps}.safetensors"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            unique = {key: tensor.contiguous().clone() for key, tensor in make(self.folder / "run").items()}
            save_file(unique, path)
        return load_file(path)

    # --- making and measuring ---

    def make(self, model: Any, positive: Any, negative: Any, seed: int, cfg: float = toy.CFG) -> Tensor:
        """One picture for every reference, (n, 64, 64, 3)."""
        with torch.inference_mode():
            latent = torch.zeros(REFERENCES, 4, toy.LATENT_SIZE, toy.LATENT_SIZE)
            noise = comfy.sample.prepare_noise(latent, 1000 + seed)
            settings = (toy.STEPS, cfg, toy.SAMPLER, toy.SCHEDULER, positive, negative, latent)
            samples = comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=seed)
            return self.base.vae.decode(samples)

    def prompted(
        self,
        adapter: host.HostAdapter,
        seed: int,
        weight: float = 1.0,
        text: str = "",
        model: Any = None,
        hint: Any = None,
        cfg: float = toy.CFG,
    ) -> Tensor:
        """One picture from every reference."""
        with torch.inference_mode():
            each = host.Encoding(Arrange.ONE_EACH)
            prompt = host.encode_prompt(
                adapter, self.base.clip_vision, host.Reference(self.references), encoding=each
            )
            steered = host.apply_prompt(model or self.base.model, prompt, weight)
        positive, negative = toy.encode_text(text), toy.encode_text("")
        if hint is not None:
            positive, negative = hint(positive, negative)
        return self.make(steered, positive, negative, seed, cfg)

    def prompted_by_concatenation(self, adapter: host.HostAdapter, seed: int) -> Tensor:
        with torch.inference_mode():
            features = self.base.features(Variant.BASE, self.references)
            tokens = [adapter.project(Features(f)) for f in (features, torch.zeros_like(features))]
            empty = toy.encode_text("")[0][0].expand(REFERENCES, -1, -1)
            conds = [[[torch.cat((empty, t), dim=1), {}]] for t in tokens]
        return self.make(self.base.model, *conds, seed)

    def likeness(self, made: Tensor, of: Tensor | None = None) -> float:
        """Toy CLIP-I: mean cosine of image embeddings with the references, or with `of`."""
        pair = [
            self.base.features(Variant.BASE, picture)
            for picture in (made, self.references if of is None else of)
        ]
        return torch.nn.functional.cosine_similarity(*pair).mean().item()


def as_adapter(made: Made) -> host.HostAdapter:
    """From a trainee's weights, whatever else is in them."""
    marks = ("adapter.image_proj.", "adapter.ip_adapter.")
    parts = ({key.split(mark, 1)[1]: t for key, t in made.items() if mark in key} for mark in marks)
    return host.HostAdapter(Checkpoint("toy", *parts))


def with_unet(model: Any, made: Made) -> Any:
    """A clone of the model with these weights in its UNet."""
    changed = frozen_copy(model)
    changed.model.diffusion_model.load_state_dict(
        {k[5:]: t for k, t in made.items() if k.startswith("unet.")}
    )
    return changed
