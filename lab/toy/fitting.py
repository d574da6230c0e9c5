"""What every training stage shares: the command line's settings, the optimizer loop, the data."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import text, world

log = logging.getLogger("lab.toy")
PICTURES = 16_000
SAVE_EVERY = 200


@dataclass(frozen=True)
class Run:
    """The command line's settings. scale: factor on every stage's number of steps."""

    out: Path
    scale: float
    seed: int
    resume: bool


@dataclass(frozen=True)
class Data:
    """The training set of the diffusion stages."""

    scenes: world.Scenes
    ids: Tensor  # (n, 4) caption tokens
    latents: Tensor  # (n, 4, 8, 8), mean 0, std 1


def fit(
    name: str,
    run: Run,
    steps: int,
    lr: float,
    modules: list[nn.Module],
    loss: Callable[[], Tensor],
    save: Callable[[], None],
) -> None:
    """AdamW with a short warm-up and a cosine to zero over `loss()`, which draws its own batch.

    Saves every SAVE_EVERY steps, so that an interrupted stage is not lost.
    """
    steps = max(1, round(steps * run.scale))
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.05)
    mean = 0.0
    bar = tqdm(range(steps), desc=name, mininterval=10)
    for step in bar:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        mean += (value.item() - mean) / min(step + 1, 100)
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save()
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
    save()
    log.info("%s: %d steps, %d parameters, loss %.4f", name, steps, sum(p.numel() for p in parameters), mean)


def scene_batches(size: int, seed: int) -> Iterator[world.Scenes]:
    """Endless batches of fresh scenes."""
    while True:
        seed += 1
        yield world.make_scenes(size, seed)


def index_batches(count: int, size: int) -> Iterator[Tensor]:
    """Endless batches of indices below `count`, each epoch in a new order."""
    while True:
        yield from torch.randperm(count).split(size)[: count // size]


def training_data(run: Run) -> Data:
    """PICTURES scenes with their captions and latents; fewer for a trial with fewer steps."""
    scenes = world.make_scenes(max(64, round(PICTURES * min(1.0, run.scale))), run.seed + 7)
    ids = torch.stack([text.tokenize(c) for c in world.captions(scenes)])
    parts = (scenes[start : start + 64] for start in range(0, len(scenes), 64))
    return Data(scenes, ids, torch.cat([world.latents(part) for part in parts]))
