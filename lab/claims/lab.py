"""Trains what a claim compares, once, and measures the pictures."""

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
from ...ipadapter_core.training.config import TrainingConfig
from ...ipadapter_core.training.trainable import TrainableAdapter, new_trainable
from ...training.callbacks import Callback
from ...training.loop import Output, Trainer
from ..toy import models as toy
from ..toy import world
from ..toy.adapter_training import EncodedScenes, ProgressBar, ToyBase, training_config
from .measures import Judge, Measures

SCENES, HELD_OUT, REFERENCES = 4000, 31_415, 96
# learning rate of deep networks: the resampler, the whole UNet
SLOWER = 5e-4
Weights = dict[str, Tensor]


class Concatenated(nn.Module):
    """The simple adapter of the paper's ablation: image tokens appended to the text's, projected by the frozen K and V."""

    def __init__(self, trainable: TrainableAdapter):
        super().__init__()
        self.adapter = trainable.adapter
        self.adapter.ip_adapter.requires_grad_(False)
        self.projection = self.adapter.image_proj
        self.lora, self.timed = None, False

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(features)

    def parameters(self, recurse: bool = True):
        return self.projection.parameters(recurse)


class ConcatenatingBase(ToyBase):
    def predict(self, noisy: Tensor, timesteps: Tensor, texts: Any, crops: Any, pairs: Any) -> Tensor:
        longer = type(texts)(torch.cat((texts.context, pairs), dim=1), None)
        return super().predict(noisy, timesteps, longer, crops, ())


class FullFineTuning(nn.Module):
    """Adapter and UNet together: full fine-tuning. With no adapter, fine-tuning on text alone."""

    def __init__(self, unet: nn.Module, trainable: TrainableAdapter | None):
        super().__init__()
        self.unet, self.trainable = unet, trainable
        self.lora, self.timed = None, False

    def forward(self, features: Tensor) -> Any:
        return self.trainable(features) if self.trainable else ()


class TrainableBase(ToyBase):
    """The toy base with a trainable UNet."""

    def load(self, gradient_checkpointing: bool) -> None:
        super().load(gradient_checkpointing)
        self.unet.requires_grad_(True)


class StatelessTrainer(Trainer):
    """A trainer without states: the lab stores the trained weights itself."""

    def save(self, callback: Callback) -> int:
        return self.number


@dataclass
class Lab:
    """folder: of the trained weights, which are trained once: an interrupted run resumes there."""

    folder: Path
    steps: int
    encoded: dict[Variant, EncodedScenes] = field(default_factory=dict)

    @cached_property
    def base(self) -> ToyBase:
        return ToyBase()

    @cached_property
    def wanted(self) -> world.Scenes:
        """That no training saw."""
        return world.make_scenes(REFERENCES, HELD_OUT)

    @cached_property
    def references(self) -> Tensor:
        """(n, 96, 96, 3), of those scenes."""
        return world.render(self.wanted).movedim(1, -1)

    def data(self, kind: Variant) -> EncodedScenes:
        if kind not in self.encoded:
            self.encoded[kind] = EncodedScenes(self.base, kind, world.make_scenes(SCENES, 7))
        return self.encoded[kind]

    # --- training ---

    def adapter(self, name: str, seed: int, **changes: Any) -> host.HostAdapter:
        """With decoupled cross-attention, trained by the config with these changes."""
        return as_adapter(self._trained(name, seed, self.base, self.new, **changes))

    def concatenated(self, seed: int) -> host.HostAdapter:
        base = ConcatenatingBase(self.base.model)
        return as_adapter(
            self._trained("concatenated", seed, base, lambda config: Concatenated(self.new(config)))
        )

    def fine_tuned(self, seed: int) -> tuple[Any, host.HostAdapter]:
        """(model, adapter) after full fine-tuning of both."""
        base = TrainableBase(self.base.model)
        weights = self._trained(
            "full fine-tuning",
            seed,
            base,
            lambda config: FullFineTuning(base.unet, self.new(config)),
            learning_rate=SLOWER,
        )
        return with_unet(self.base.model, weights), as_adapter(weights)

    def custom(self, seed: int) -> Any:
        """A model fine-tuned on scenes with deep grounds alone, without any adapter."""
        base = TrainableBase(self.base.model)
        scenes = world.make_scenes(SCENES, 11)
        deep = scenes[scenes.tone == world.TONES.index("deep")]
        weights = self._trained(
            "custom base", seed, base, lambda _: FullFineTuning(base.unet, None), deep, learning_rate=SLOWER
        )
        return with_unet(self.base.model, weights)

    def new(self, config: TrainingConfig) -> TrainableAdapter:
        width = self.data(config.kind).no_image.shape[-1]
        return new_trainable(config, self.base.model.model.diffusion_model, self.base.sites, width)

    def _trained(
        self,
        name: str,
        seed: int,
        base: ToyBase,
        new: Callable[[TrainingConfig], Any],
        scenes: world.Scenes | None = None,
        **changes: Any,
    ) -> Weights:
        """Of the module that `new` makes: from the folder, else trained. scenes: else those of all adapters."""
        path = self.folder / f"{name.replace(' ', '-')}-{seed}-{self.steps}.safetensors"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            config = training_config(steps=self.steps, seed=seed, **changes)
            save_file(self._train(f"{name}, seed {seed}", config, base, new, scenes), path)
        return load_file(path)

    def _train(
        self,
        title: str,
        config: TrainingConfig,
        base: ToyBase,
        new: Callable[[TrainingConfig], Any],
        scenes: world.Scenes | None,
    ) -> Weights:
        data = self.data(config.kind) if scenes is None else EncodedScenes(base, config.kind, scenes)
        module = new(config)
        trainer = StatelessTrainer(config, base, data, module, Output(self.folder / "run", every=0))
        trainer.run(ProgressBar(title, config.steps))
        return {key: tensor.detach().clone().contiguous() for key, tensor in module.state_dict().items()}

    # --- making and measuring ---

    def make(self, model: Any, positive: Any, negative: Any, seed: int, cfg: float = toy.CFG) -> Tensor:
        """One picture for every reference, (n, 96, 96, 3)."""
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
            positive, negative = ([[torch.cat((empty, t), dim=1), {}]] for t in tokens)
        return self.make(self.base.model, positive, negative, seed)

    def through_vae(self, scenes: world.Scenes) -> Tensor:
        """Pictures (n, 96, 96, 3) as good as a model could make them."""
        out = self.base.model.model.process_latent_out
        return self.base.vae.decode(out(world.latents(scenes)))

    @cached_property
    def judge(self) -> Judge:
        return Judge(lambda pictures: self.base.features(Variant.BASE, pictures))

    def measures(self, made: Tensor, wanted: world.Scenes | None = None) -> Measures:
        """Of one picture for each wanted scene; without any, for each reference."""
        return self.judge.measures(made, self.wanted if wanted is None else wanted)


def as_adapter(weights: Weights) -> host.HostAdapter:
    """From the weights of a trained module, whatever else they hold."""
    marks = ("adapter.image_proj.", "adapter.ip_adapter.")
    parts = ({key.split(mark, 1)[1]: t for key, t in weights.items() if mark in key} for mark in marks)
    return host.HostAdapter(Checkpoint("toy", *parts))


def with_unet(model: Any, weights: Weights) -> Any:
    """A clone of the model with these weights in its UNet."""
    changed = frozen_copy(model)
    changed.model.diffusion_model.load_state_dict(
        {k[5:]: t for k, t in weights.items() if k.startswith("unet.")}
    )
    return changed
