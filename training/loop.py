"""The training loop on accelerate: one step is a function of the weights, the recipe and its number."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..common.extras import extra
from ..ipadapter_core.errors import RecipeError
from ..ipadapter_core.training.batches import Frame, Plan
from ..ipadapter_core.training.draws import draw
from ..ipadapter_core.training.export import save_adapter
from ..ipadapter_core.training.objective import loss_of
from ..ipadapter_core.training.recipe import Recipe
from ..ipadapter_core.training.trainee import Trainee, to_checkpoint
from .base import Base, Texts
from .encoded import Rows, features_of, texts_of

KEPT_STATES = 2
STATE, ABOUT = "state", "about.json"


@dataclass(frozen=True)
class Step:
    """What one step did. number: of steps done by now. loss: mean over the batches of all processes."""

    number: int
    steps: int
    loss: float
    rate: float


class Data(Protocol):
    """Encoded pictures: `Encodings`, or anything else that has batches."""

    frames: Sequence[Frame]
    no_text: Texts
    no_image: Tensor

    def batch(self, numbers: Sequence[int]) -> tuple[Rows, list[Frame]]: ...
    def expect(self, numbers: Sequence[int]) -> None: ...


class Watcher:
    """Who looks on. What it raises stops the run; what was learnt is saved first."""

    def stepped(self, step: Step) -> None: ...
    def saved(self, path: Path, step: int) -> None: ...

    @property
    def stopping(self) -> bool:
        """Whether to stop after this step, and save."""
        return False


@dataclass(frozen=True)
class Output:
    """Where to write. every: steps between savings, 0 for at the end only. name: of the adapter files."""

    folder: Path
    name: str = "adapter"
    every: int = 500


def accelerator_for(recipe: Recipe, device: torch.device) -> Any:
    """Accelerate's view of this process: alone, or one of several that `accelerate launch` started."""
    accelerate = extra("accelerate")
    if accelerate.state.AcceleratorState._shared_state:  # an earlier run in this process had other settings
        accelerate.state.AcceleratorState._reset_state()
    return accelerate.Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=recipe.precision.value,
        gradient_accumulation_steps=recipe.accumulation,
    )


class Trainer:
    """Trains `trainee` on encoded pictures. Nothing but its parameters changes."""

    def __init__(
        self,
        recipe: Recipe,
        base: Base,
        data: Data,
        trainee: Trainee,
        output: Output,
        accelerator: Any = None,
    ):
        self.recipe, self.base, self.data, self.output = recipe, base, data, output
        self.accelerator = accelerator or accelerator_for(recipe, base.device)
        share, rank = recipe.batch_size, self.accelerator.process_index
        self.plan = Plan(
            recipe, [shape.bucket for shape in data.frames], share * self.accelerator.num_processes
        )
        self.part = slice(rank * share, (rank + 1) * share)
        self.number = 0  # of steps done
        self.trainee = trainee.to(self.accelerator.device).train()
        rate, decay = recipe.rate_at(0), recipe.weight_decay
        optimizer = torch.optim.AdamW(self.trainee.parameters(), lr=rate, weight_decay=decay)
        self.model, self.optimizer = self.accelerator.prepare(self.trainee, optimizer)
        self.average = None
        if recipe.ema:
            self.average = AveragedModel(self.trainee, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
            self.accelerator.register_for_checkpointing(self.average)

    def run(self, watcher: Watcher) -> Path:
        """All steps that are left. The path of the adapter. Whatever stops it, complete steps are saved first."""
        saved = self.number
        self.base.load(self.recipe.checkpointing)
        try:
            while self.number < self.recipe.steps and not self._agreed(watcher.stopping):
                step = self._step()
                watcher.stepped(step)
                if self.output.every and self.number % self.output.every == 0:
                    saved = self.save(watcher)
        finally:
            if self.number > saved:
                self.save(watcher)
        return self.path(self.number)

    def _step(self) -> Step:
        """One step of the optimizer, over `accumulation` batches."""
        rate = self.recipe.rate_at(self.number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses: list[Tensor] = []
        for batch in range(
            self.number * self.recipe.accumulation, (self.number + 1) * self.recipe.accumulation
        ):
            with self.accelerator.accumulate(self.model):
                loss = self._loss(batch)
                self._require_finite(loss)
                self.accelerator.backward(loss)
                if self.recipe.max_grad_norm and self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.trainee.parameters(), self.recipe.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        if self.average is not None:
            self.average.update_parameters(self.trainee)
        mean = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean"))
        self.number += 1
        return Step(self.number, self.recipe.steps, mean, rate)

    def _require_finite(self, loss: Tensor) -> None:
        """Before the weights take the step: those that are saved then are whole."""
        if not math.isfinite(loss.item()):
            raise RecipeError(
                f"the loss is {loss.item()} in step {self.number + 1}. Lower learning_rate, or use bf16 or full precision "
                f"instead of fp16. The adapter after step {self.number} is in {self.output.folder}."
            )

    def _loss(self, batch: int) -> Tensor:
        """Eq. (6) of this process's part of batch 0, 1, ... of the whole run."""
        device, diffusion = self.accelerator.device, self.base.diffusion
        rows, frames = self.data.batch(self.plan.batch(batch)[self.part])
        self.data.expect(self.plan.batch(batch + 1)[self.part])
        shape = (self.plan.count, *rows["latents"].shape[1:])
        drawn = draw(self.recipe, batch, shape, len(diffusion)).rows(self.part)
        latents, noise = rows["latents"].to(device), drawn.noise.to(device)
        noisy = diffusion.noised(latents, noise, drawn.timesteps)
        target = diffusion.target(latents, noise, drawn.timesteps)
        pairs = self.model(features_of(rows, drawn.drop_image, self.data.no_image).to(device))
        texts = texts_of(rows, drawn.drop_text, self.data.no_text)
        with self.accelerator.autocast():
            predicted = self.base.predict(noisy, drawn.timesteps, texts, frames, pairs)
        return loss_of(predicted, target)

    def _agreed(self, stopping: bool) -> bool:
        """Whether any process was told to stop: all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stopping
        return bool(
            self.accelerator.reduce(torch.tensor(float(stopping), device=self.accelerator.device), "sum")
        )

    # --- saving and going on ---

    def path(self, step: int, kind: str = "") -> Path:
        return self.output.folder / f"{self.output.name}-{step:06d}{kind}.safetensors"

    def save(self, watcher: Watcher) -> int:
        """The adapter in the released layout, and all that going on needs. Returns the number of steps in it."""
        folder = self.output.folder / f"{STATE}-{self.number:06d}"
        self.accelerator.save_state(str(folder))
        if self.accelerator.is_main_process:
            about = {
                "recipe": self.recipe.plain(),
                "steps": self.number,
                "processes": self.accelerator.num_processes,
            }
            told = {"image_prompt_training": json.dumps(about)}
            save_adapter(self.trainee.checkpoint(self.output.name), self.path(self.number), told)
            if self.average is not None:
                averaged = to_checkpoint(self.output.name, self.average.module.adapter.state_dict())
                save_adapter(averaged, self.path(self.number, "-ema"), told)
            (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")  # last: a state with it is whole
            for old in states(self.output.folder)[:-KEPT_STATES]:
                shutil.rmtree(old)
            watcher.saved(self.path(self.number), self.number)
        self.accelerator.wait_for_everyone()
        return self.number

    def resume(self) -> int:
        """Go on from the last whole state in the output folder, if there is one. Returns the number of steps in it.

        Raises RecipeError if it was made by another recipe, or on another number of processes.
        """
        found = states(self.output.folder)
        if not found:
            return 0
        about = json.loads((found[-1] / ABOUT).read_text(encoding="utf-8"))
        differences = Recipe.of(about["recipe"]).differences(self.recipe)
        if about["processes"] != self.accelerator.num_processes:
            differences.append(
                f"processes were {about['processes']} and are {self.accelerator.num_processes}"
            )
        if differences:
            raise RecipeError(
                f"{found[-1]} was made otherwise: {'; '.join(differences)}. Go on as it was made, or train into another "
                "folder."
            )
        self.accelerator.load_state(str(found[-1]))
        self.number = about["steps"]
        return self.number


def states(folder: Path) -> list[Path]:
    """Whole states, the oldest first."""
    return sorted(path.parent for path in folder.glob(f"{STATE}-*/{ABOUT}"))
