"""The training loop on accelerate: one step is a function of the weights, the recipe and its number."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..ipadapter_core.errors import ImagePromptError, SettingError
from ..ipadapter_core.files.writing import write_bytes
from ..ipadapter_core.training.base import Base, Texts
from ..ipadapter_core.training.batches import Frame, Plan
from ..ipadapter_core.training.draws import draw
from ..ipadapter_core.training.export import save_adapter
from ..ipadapter_core.training.objective import loss_of
from ..ipadapter_core.training.precision import LossScale, autocast_dtype
from ..ipadapter_core.training.recipe import Recipe
from ..ipadapter_core.training.trainee import Trainee
from .encoded import Rows, features_of, texts_of
from .launch import accelerator_for, as_launched
from .states import DamagedStateError, all_states, read_about, set_aside, write_state
from .states import states as states

log = logging.getLogger(__name__)


class NotFiniteError(SettingError):
    """A loss or a gradient is no number, on any process: all of them raise it."""


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

    def require_writable(self, steps: int) -> None:
        """Raises WriteError where the last adapter could not be written, before anything is encoded."""
        trial = self.folder / f".{self.name}-{steps:06d}-ema.is-writable"
        write_bytes(trial, b"")
        trial.unlink(missing_ok=True)


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
        self.recipe = recipe = as_launched(recipe)
        self.base, self.data, self.output = base, data, output
        base.compute_in(recipe)
        self.accelerator = accelerator or accelerator_for(recipe, base.device)
        share, rank = recipe.batch_size, self.accelerator.process_index
        self.plan = Plan(
            recipe, [shape.bucket for shape in data.frames], share * self.accelerator.num_processes
        )
        self.part = slice(rank * share, (rank + 1) * share)
        self.number = 0  # of steps done
        self.scale = LossScale(recipe, base.dtype)
        self._whole = self._together = True
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
        if not saved:
            self._leave_earlier_runs()
        self.base.load(self.recipe.checkpointing)
        try:
            while self.number < self.recipe.steps and not self._agreed(watcher.stopping):
                step = self._step()
                watcher.stepped(step)
                if self.output.every and self.number % self.output.every == 0:
                    saved = self.save(watcher)
        except BaseException as error:
            # the others do not wait for this process, unless they stop for the same reason
            self._together = isinstance(error, NotFiniteError)
            if self.number > saved and self._whole:
                self.save(watcher)
            raise
        if self.number > saved or not self.path(self.number).exists():
            self.save(watcher)
        return self.path(self.number)

    def _leave_earlier_runs(self) -> None:
        """A run that begins anew never goes on from another one's states, and never removes them."""
        if self.accelerator.is_main_process:
            for state in all_states(self.output.folder):
                set_aside(state, "earlier")
        self.accelerator.wait_for_everyone()

    def _step(self) -> Step:
        """One step of the optimizer, over `accumulation` batches."""
        rate = self.recipe.rate_at(self.number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._gradients()
        self._whole = False
        if self.recipe.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.trainee)
        self.scale.stepped()
        self.number += 1
        self._whole = True
        mean = float(self.accelerator.reduce(loss, "mean"))
        return Step(self.number, self.recipe.steps, mean, rate)

    def _gradients(self) -> Tensor:
        """Those of the step, finite and not scaled; again with a smaller scale where they overflow. The mean loss."""
        count = self.recipe.accumulation
        while True:
            losses: list[Tensor] = []
            self.optimizer.zero_grad()
            for number in range(count):
                last = number + 1 == count
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                    loss = self._loss(self.number * count + number)
                    self._require_finite(loss)
                    self.accelerator.backward(loss * (self.scale.value / count))
                losses.append(loss.detach())
            held = (p.grad for p in self.trainee.parameters() if p.grad is not None)
            if bool(self.scale.unscale(held)):
                return torch.stack(losses).mean()
            if not self.scale.overflowed():
                raise self._not_finite("a gradient is not finite")

    def _require_finite(self, loss: Tensor) -> None:
        """Before the weights take the step, on all processes at once: those that are saved then are whole."""
        finite = math.isfinite(loss.item())
        if self._agreed(not finite):
            raise self._not_finite(
                f"the loss is {'not finite on another process' if finite else loss.item()}"
            )

    def _not_finite(self, what: str) -> NotFiniteError:
        return NotFiniteError(
            f"{what} in step {self.number + 1}. Lower learning_rate, or use full precision. The adapter after step "
            f"{self.number} is in {self.output.folder}."
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
        features = features_of(rows, drawn.drop_image, self.data.no_image).to(device)
        texts = texts_of(rows, drawn.drop_text, self.data.no_text)
        half = autocast_dtype(self.recipe)
        pairs = self.model(features)
        # a UNet in half precision computes in it as it is
        with torch.autocast(device.type, half, enabled=half is not None and self.base.dtype is torch.float32):
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
        if self.accelerator.is_main_process:
            about = {
                "recipe": self.recipe.plain(),
                "steps": self.number,
                "processes": self.accelerator.num_processes,
            }
            held = {**about, "scale": self.scale.plain()}
            write_state(self.output.folder, self.number, held, self.accelerator.save_state)
            told = {"image_prompt_training": json.dumps(about)}
            save_adapter(self.trainee.checkpoint(self.output.name), self.path(self.number), told)
            if self.average is not None:
                averaged = self.average.module.checkpoint(self.output.name)
                save_adapter(averaged, self.path(self.number, "-ema"), told)
            watcher.saved(self.path(self.number), self.number)
        if self._together:
            self.accelerator.wait_for_everyone()
        return self.number

    def resume(self) -> int:
        """Go on from the last whole state in the output folder, if there is one. Returns the number of steps in it.

        Damaged ones are passed over with a line, and set aside. Raises SettingError if all are damaged, or if the last was
        made by another recipe, or on another number of processes.
        """
        damaged: dict[Path, str] = {}
        for state in reversed(all_states(self.output.folder)):
            try:
                about = read_about(state)
                self._require_alike(state, about)
                self._load(state, about)
            except DamagedStateError as error:
                damaged[state] = str(error)
            else:
                self._pass_over(damaged, state)
                return self.number
        if damaged:
            raise SettingError(
                f"no state in {self.output.folder} can be gone on from: {_listed(damaged)}. Put back what is missing, turn "
                "resume off to begin anew, or train into another folder."
            )
        return 0

    def _require_alike(self, state: Path, about: dict[str, Any]) -> None:
        try:
            recipe = Recipe.of(about["recipe"])
        except ImagePromptError as error:
            raise DamagedStateError(f"its recipe: {error}") from error
        differences = recipe.differences(self.recipe)
        if about["processes"] != self.accelerator.num_processes:
            differences.append(
                f"processes were {about['processes']} and are {self.accelerator.num_processes}"
            )
        if differences:
            raise SettingError(
                f"{state} was made otherwise: {'; '.join(differences)}. Go on as it was made, or train into another folder."
            )

    def _load(self, state: Path, about: dict[str, Any]) -> None:
        try:
            self.accelerator.load_state(str(state))
            self.scale.restore(about.get("scale"))
        except Exception as error:  # readers of damaged weights raise anything
            raise DamagedStateError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
        self.number = about["steps"]

    def _pass_over(self, damaged: dict[Path, str], state: Path) -> None:
        """Later states than the one that is gone on from are not of the run that follows."""
        if not damaged:
            return
        log.warning("Image Prompt: %s damaged; going on from %s", _listed(damaged), state.name)
        self.accelerator.wait_for_everyone()  # all have read them
        if self.accelerator.is_main_process:
            for path in damaged:
                set_aside(path, "damaged")
        self.accelerator.wait_for_everyone()


def _listed(damaged: dict[Path, str]) -> str:
    return ", ".join(f"{path.name} ({why})" for path, why in damaged.items())
