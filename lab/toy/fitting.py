"""What every training stage shares: the command line's settings, the optimizer loop with its states, the data."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import text, world

log = logging.getLogger("lab.toy")
PICTURES = 8_000
SAVE_EVERY = 100
# of the weights' running mean, which is what is kept
EMA = 0.995


@dataclass(frozen=True)
class Run:
    """The command line's settings. scale: factor on every stage's number of steps. state: folder of interrupted stages."""

    out: Path
    scale: float
    seed: int
    resume: bool
    state: Path


@dataclass(frozen=True)
class Data:
    """The training set of the diffusion stages."""

    scenes: world.Scenes
    ids: Tensor  # (n, 5) caption tokens
    latents: Tensor  # (n, 4, 12, 12), mean about 0, std about 1


@dataclass
class Fit:
    """A stage in training: its optimizer, the running mean of its weights, and how to go on after an interruption."""

    modules: nn.ModuleList
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    path: Path
    step: int = 0

    def __post_init__(self) -> None:
        self.mean = {key: value.detach().clone() for key, value in self.modules.state_dict().items()}

    def advance(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        # short at first, so that the start is soon forgotten
        decay = min(EMA, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.mean.values()), list(self.modules.state_dict().values()), 1 - decay)

    def save(self, write: Callable[[], None]) -> None:
        """The state, and by `write` the weights' running mean."""
        parts = {"modules": self.modules, "optimizer": self.optimizer, "schedule": self.schedule}
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        torch.save(state | {"mean": self.mean, "step": self.step}, partial)
        partial.replace(self.path)
        current = {key: value.clone() for key, value in self.modules.state_dict().items()}
        self.modules.load_state_dict(self.mean)
        write()
        self.modules.load_state_dict(current)

    def load(self) -> None:
        """Go on where the state of an interrupted run ends; without one, from the start."""
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            self.modules.load_state_dict(state["modules"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.mean, self.step = state["mean"], state["step"]


def fit(
    name: str,
    run: Run,
    steps: int,
    lr: float,
    modules: list[nn.Module],
    loss: Callable[[int], Tensor],
    write: Callable[[], None],
) -> None:
    """AdamW with a short warm-up and a cosine to zero over `loss(step)`, which draws its own batch.

    Keeps its state every SAVE_EVERY steps in `run.state`, where the same command goes on.
    """
    steps = max(1, round(steps * run.scale))
    every = nn.ModuleList(modules)
    optimizer = torch.optim.AdamW(
        [p for p in every.parameters() if p.requires_grad], lr=lr, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.05)
    state = Fit(every, optimizer, schedule, run.state / f"{name}-{run.seed}-{steps}.pt")
    state.load()
    torch.manual_seed(run.seed + state.step)
    mean = 0.0
    bar = tqdm(range(state.step, steps), desc=name, mininterval=10)
    for step in bar:
        value = loss(step)
        state.advance(value)
        mean += (value.item() - mean) / min(step + 1, 100)
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if state.step % SAVE_EVERY == 0:
            state.save(write)
            log.info("%s: step %d, loss %.4f", name, state.step, mean)
    state.save(write)


def scenes_of_step(size: int, seed: int, step: int) -> world.Scenes:
    """Fresh scenes for a step, the same in a run that was interrupted."""
    return world.make_scenes(size, (seed + 1) * 10_000_000 + step)


def training_data(run: Run, pictures: int = PICTURES) -> Data:
    """So many scenes with their captions and latents; fewer for a trial with fewer steps."""
    scenes = world.make_scenes(max(64, round(pictures * min(1.0, 10 * run.scale))), run.seed + 7)
    ids = torch.stack([text.tokenize(c) for c in world.captions(scenes)])
    parts = (scenes[start : start + 64] for start in range(0, len(scenes), 64))
    return Data(scenes, ids, torch.cat([world.latents(part) for part in parts]))
