"""Adapters of several kinds, each trained until its held-out loss falls no more."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import host
from ...ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from ...ipadapter_core.families.table import family_of
from ...ipadapter_core.projections.resampler import Resampler
from ...ipadapter_core.training.config import TrainingConfig
from ...ipadapter_core.training.starts import perceiver_sizes
from ...ipadapter_core.training.trainable import TrainableAdapter, trainable_from
from ...training.callbacks import Callback, CallbackList, Step
from ...training.held_out import HeldOut
from ...training.loop import Output, Trainer
from ..toy import world
from ..toy.adapter_training import LR, EncodedScenes, ProgressBar, training_config
from .lab import SLOWER, Lab

LIMIT, BATCH, WARMUP = 4800, 16, 50
# steps between two measurements; measurements that are compared with as many before
EVERY, SPAN = 150, 4
# part of the loss by which it must still fall from one span to the next
LEAST = 0.01
# scenes of the held-out loss, and their seed
HELD_OUT, HELD_OUT_SEED = 128, 27
# SD1.5's own is 768 wide, for 20 million parameters
RESAMPLER_WIDTH = 256


@dataclass
class UntilFlat(Callback):
    """Stops when the mean of the last SPAN measurements is not LEAST below that of the SPAN before.

    path: where the measurements are kept, for a run that is interrupted. losses: so far.
    """

    path: Path
    losses: list[float] = field(default_factory=list)

    def resume(self, steps: int) -> None:
        """Go on behind so many steps."""
        if steps:
            self.losses = json.loads(self.path.read_text("utf-8"))[: steps // EVERY]

    def on_step_end(self, step: Step) -> None:
        if step.held_out is not None:
            self.losses.append(step.held_out)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.losses), "utf-8")

    @property
    def last(self) -> float:
        """The loss at the end: the mean of the last span."""
        span = self.losses[-SPAN:]
        return sum(span) / len(span)

    @property
    def should_stop(self) -> bool:
        if len(self.losses) < 2 * SPAN:
            return False
        before = sum(self.losses[-2 * SPAN : -SPAN]) / SPAN
        return self.last > (1 - LEAST) * before


@dataclass(frozen=True)
class Settled:
    """loss: on held-out scenes. steps: of training."""

    adapter: host.HostAdapter
    loss: float
    steps: int


@dataclass(frozen=True)
class Arm:
    """What is compared. start: standard deviation of a resampler's queries at first, times the published one. seeds: it is
    tried with these alone; none for all."""

    name: str
    settings: dict[str, Any]
    start: float = 0.0
    seeds: tuple[int, ...] = ()

    def is_tried(self, seed: int) -> bool:
        return not self.seeds or seed in self.seeds

    def train(self, lab: Lab, seed: int) -> Settled:
        """From the lab's folder, where it was trained before; an interrupted run goes on."""
        config = training_config(
            steps=LIMIT, batch_size=BATCH, warmup=WARMUP, ema=0.99, seed=seed, **self.settings
        )
        folder = lab.folder / "settled" / f"{self.name.replace(',', '').replace(' ', '-')}-{seed}"
        held_out = EncodedScenes(lab.base, config.kind, world.make_scenes(HELD_OUT, HELD_OUT_SEED))
        judge, flat = HeldOut(held_out, EVERY, HELD_OUT // BATCH), UntilFlat(folder / "losses.json")
        trainable = _with_resampler(lab, config, self.start) if self.start else lab.new(config)
        trainer = Trainer(
            config, lab.base, lab.data(config.kind), trainable, Output(folder, every=EVERY), held_out=judge
        )
        flat.resume(trainer.resume())
        trainer.run(CallbackList(ProgressBar(f"{self.name}, seed {seed}", LIMIT), flat))
        averaged = read_checkpoint(trainer.path(trainer.number, "-ema"))
        return Settled(host.HostAdapter(averaged), flat.last, trainer.number)


_PLUS = {"kind": "plus", "learning_rate": LR, "projection_rate": SLOWER}
ARMS = (
    Arm("4 tokens", {}),
    Arm("resampler", _PLUS, start=1.0),
    # made no difference with the first seed, and takes as long as all else of a seed
    Arm("resampler, wide start", _PLUS, start=RESAMPLER_WIDTH**0.5, seeds=(0,)),
)


def _with_resampler(lab: Lab, config: TrainingConfig, start: float) -> TrainableAdapter:
    width, family = lab.data(config.kind).no_image.shape[-1], family_of(lab.base.sites)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = perceiver_sizes(width, RESAMPLER_WIDTH, family.context_width)
        resampler = Resampler(sizes, config.token_count or 0)
        nn.init.normal_(resampler.latents, std=start * RESAMPLER_WIDTH**-0.5)
    pairs = lab.new(config).checkpoint("").ip_adapter
    return trainable_from(
        Checkpoint("small resampler", resampler.state_dict(), pairs), config, lab.base.sites
    )
