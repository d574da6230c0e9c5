"""The training loop on accelerate: a step is a function of the weights, the config and its number."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..ipadapter_core.errors import ImagePromptError, SettingError
from ..ipadapter_core.files.writing import write_bytes
from ..ipadapter_core.training.base import Base
from ..ipadapter_core.training.config import TrainingConfig, VaeDtype
from ..ipadapter_core.training.export import save_adapter, save_lora
from ..ipadapter_core.training.noise import batch_noise
from ..ipadapter_core.training.objective import loss_of
from ..ipadapter_core.training.precision import LossScale, autocast_dtype
from ..ipadapter_core.training.trainable import TrainableAdapter
from .callbacks import Callback, Step
from .draws import Data, Draws, batch_sampler
from .encoded import features_of, texts_of
from .held_out import HeldOut
from .launch import accelerator_for, as_launched
from .optimizers import make_optimizer, set_rates
from .states import DamagedStateError, all_states, read_about, set_aside, write_state

log = logging.getLogger(__name__)
# of each part of a row
ENCODERS = {
    "latents": "VAE",
    "features": "image encoder",
    "context": "text encoder",
    "pooled": "text encoder",
}


class NotFiniteError(SettingError):
    """A loss or a gradient is not finite, on any process: all processes raise it."""


@dataclass(frozen=True)
class Output:
    """Where to write. every: steps between saves, 0 for at the end only. name: of the adapter files."""

    folder: Path
    name: str = "adapter"
    every: int = 500

    def require_writable(self, steps: int) -> None:
        """Raises WriteError where the last adapter could not be written. For use before anything is encoded."""
        trial = self.folder / f".{self.name}-{steps:06d}-ema.is-writable"
        write_bytes(trial, b"")
        trial.unlink(missing_ok=True)


class Trainer:
    """Trains `trainable` on encoded pictures. Only its parameters change."""

    def __init__(
        self,
        config: TrainingConfig,
        base: Base,
        data: Data,
        trainable: TrainableAdapter,
        output: Output,
        accelerator: Any = None,
        held_out: HeldOut | None = None,
    ):
        self.config = config = as_launched(config)
        self.base, self.data, self.output, self.held_out = base, data, output, held_out
        base.compute_in(config)
        self.accelerator = accelerator or accelerator_for(config, base.device)
        size, rank = config.batch_size, self.accelerator.process_index
        self.sampler = batch_sampler(config, data, size * self.accelerator.num_processes)
        # of a batch of all processes, the rows of this one
        self.rows = slice(rank * size, (rank + 1) * size)
        # of steps done
        self.number = 0
        self.scale = LossScale(config, base.dtype)
        # whether no step is half done, and whether all processes save at the same time
        self._whole = self._together = True
        self.trainable = trainable.to(self.accelerator.device).train()
        base.attach_lora(trainable.lora)
        optimizer = make_optimizer(config, self.trainable)
        self.model, self.optimizer = self.accelerator.prepare(self.trainable, optimizer)
        self.average = None
        if config.ema:
            self.average = AveragedModel(self.trainable, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
            self.accelerator.register_for_checkpointing(self.average)

    def run(self, callback: Callback) -> Path:
        """Do all steps that are left. Returns the path of the adapter. Whatever stops it, complete steps are saved first."""
        saved = self.number
        if not saved:
            self._set_aside_earlier_runs()
        self.base.load(self.config.checkpointing)
        try:
            while self.number < self.config.steps and not self._agreed(callback.should_stop):
                step = self._step()
                callback.on_step_end(step)
                if self.output.every and self.number % self.output.every == 0:
                    saved = self.save(callback)
        except BaseException as error:
            # the other processes do not wait for this one, unless they stop for the same reason
            self._together = isinstance(error, NotFiniteError)
            if self.number > saved and self._whole:
                self.save(callback)
            raise
        if self.number > saved or not self.path(self.number).exists():
            self.save(callback)
        return self.path(self.number)

    def _set_aside_earlier_runs(self) -> None:
        """A new run never resumes from another one's states, and never removes them."""
        if self.accelerator.is_main_process:
            for state in all_states(self.output.folder):
                set_aside(state, "earlier")
        self.accelerator.wait_for_everyone()

    def _step(self) -> Step:
        """One step of the optimizer, over `accumulation` batches."""
        began = time.perf_counter()
        lr = set_rates(self.optimizer, self.config, self.number)
        loss = self._gradients()
        self._whole = False
        if self.config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.trainable.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.trainable)
        self.scale.update()
        self.number += 1
        self._whole = True
        mean = float(self.accelerator.reduce(loss, "mean"))
        held_out = None if self.held_out is None else self.held_out.loss(self)
        return Step(self.number, self.config.steps, mean, lr, time.perf_counter() - began, held_out)

    def _gradients(self) -> Tensor:
        """Compute the step's gradients, finite and unscaled; repeated with a smaller scale on overflow. The mean loss."""
        count = self.config.accumulation
        while True:
            losses: list[Tensor] = []
            self.optimizer.zero_grad()
            for number in range(count):
                last = number + 1 == count
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                    batch = self.number * count + number
                    loss = self._loss(batch)
                    self._require_finite(loss, batch)
                    self.accelerator.backward(loss * (self.scale.value / count))
                losses.append(loss.detach())
            held = (p.grad for p in self.trainable.parameters() if p.grad is not None)
            if bool(self.scale.unscale(held)):
                return torch.stack(losses).mean()
            if not self.scale.back_off():
                raise self._not_finite("a gradient is not finite")

    def _require_finite(self, loss: Tensor, batch: int) -> None:
        """Before the optimizer's step, on all processes at once: the weights that are saved then are whole."""
        finite = math.isfinite(loss.item())
        if self._agreed(not finite):
            what = f"the loss is {'not finite on another process' if finite else loss.item()}"
            raise self._not_finite(what, "" if finite else self._cause(batch))

    def _cause(self, batch: int) -> str:
        """What to do where it is an encoder that gives what is not finite."""
        rows, _ = Draws(self.config, self.data, self.sampler).rows(batch, self.rows)
        names = [name for part, name in ENCODERS.items() if part in rows and not rows[part].isfinite().all()]
        if not names:
            return ""
        more = ", or set vae to auto" if self.config.vae is VaeDtype.HOST and "VAE" in names[0] else ""
        return f"The {' and the '.join(dict.fromkeys(names))} gave numbers like this. Use another file{more}."

    def _not_finite(self, what: str, advice: str = "") -> NotFiniteError:
        saved = f" The adapter after step {self.number} is in {self.output.folder}." if self.number else ""
        advice = advice or "Lower learning_rate, or use full precision."
        return NotFiniteError(f"{what} in step {self.number + 1}. {advice}{saved}")

    def _loss(self, batch: int) -> Tensor:
        """Eq. (6) of this process's part of batch 0, 1, ... of the whole run."""
        return self.loss_on(Draws(self.config, self.data, self.sampler), batch)

    def loss_on(self, draws: Draws, batch: int) -> Tensor:
        """The same of any data, by its own order, noise and timesteps."""
        device, diffusion, config = self.accelerator.device, self.base.diffusion, draws.config
        rows, crops = draws.rows(batch, self.rows)
        shape = draws.shape(rows)
        drawn = batch_noise(config, batch, shape, diffusion.times(config)).rows(self.rows)
        latents = draws.latents(rows, batch, shape, self.rows).to(device)
        noise = drawn.noise.to(device)
        noisy = diffusion.noised(latents, noise, drawn.timesteps)
        target = diffusion.target(latents, noise, drawn.timesteps)
        features = features_of(rows, drawn.drop_image, draws.data.no_image).to(device)
        texts = texts_of(rows, drawn.drop_text, draws.data.no_text)
        half = autocast_dtype(config)
        timesteps = diffusion.timesteps(drawn.timesteps)
        pairs = self.model(features, timesteps.to(device)) if self.trainable.timed else self.model(features)
        # a UNet in half precision needs no autocast
        with torch.autocast(device.type, half, enabled=half is not None and self.base.dtype is torch.float32):
            predicted = self.base.predict(noisy, timesteps, texts, crops, pairs)
        return loss_of(predicted, target, diffusion.weights(drawn.timesteps, config))

    def _agreed(self, stopping: bool) -> bool:
        """Whether any process is stopping: all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stopping
        return bool(
            self.accelerator.reduce(torch.tensor(float(stopping), device=self.accelerator.device), "sum")
        )

    # --- saving and resuming ---

    def path(self, step: int, kind: str = "") -> Path:
        return self.output.folder / f"{self.output.name}-{step:06d}{kind}.safetensors"

    def save(self, callback: Callback) -> int:
        """Write a state to resume from and the adapter in the released layout. Returns the number of steps in them."""
        if self.accelerator.is_main_process:
            about = {
                "recipe": self.config.to_dict(),
                "steps": self.number,
                "processes": self.accelerator.num_processes,
            }
            state = {**about, "scale": self.scale.state_dict()}
            write_state(self.output.folder, self.number, state, self.accelerator.save_state)
            metadata = {"image_prompt_training": json.dumps(about)}
            self._write(self.trainable, "", metadata)
            if self.average is not None:
                self._write(cast("TrainableAdapter", self.average.module), "-ema", metadata)
            callback.on_save(self.path(self.number), self.number)
        if self._together:
            self.accelerator.wait_for_everyone()
        return self.number

    def _write(self, trainable: TrainableAdapter, kind: str, metadata: dict[str, str]) -> None:
        """The adapter with its LoRA inside, after that LoRA as a file of its own, for LoRA loaders."""
        if trainable.lora is not None:
            lora = trainable.lora.as_file(self.base.diffusers_names())
            save_lora(lora, self.path(self.number, f"{kind}_lora"), metadata)
        save_adapter(trainable.checkpoint(self.output.name), self.path(self.number, kind), metadata)

    def resume(self) -> int:
        """Resume from the last whole state in the output folder, if there is one. Returns the number of steps in it.

        Damaged ones are skipped with a warning, and renamed. Raises DamagedStateError if all are damaged, SettingError if
        the last whole one has another config, or another number of processes.
        """
        damaged: dict[Path, str] = {}
        for state in reversed(all_states(self.output.folder)):
            try:
                about = read_about(state)
                self._require_same_settings(state, about)
                self._load(state, about)
            except DamagedStateError as error:
                damaged[state] = str(error)
            else:
                self._skip(damaged, state)
                return self.number
        if damaged:
            raise DamagedStateError(
                f"no state in {self.output.folder} can be resumed from: {_listed(damaged)}. Put back what is missing, turn "
                "resume off to start again, or train into another folder."
            )
        return 0

    def _require_same_settings(self, state: Path, about: dict[str, Any]) -> None:
        try:
            config = TrainingConfig.from_dict(about["recipe"])
        except ImagePromptError as error:
            raise DamagedStateError(f"its settings: {error}") from error
        differences = config.differences(self.config)
        if about["processes"] != self.accelerator.num_processes:
            differences.append(
                f"processes were {about['processes']} and are {self.accelerator.num_processes}"
            )
        if differences:
            raise SettingError(
                f"{state} was made with other settings: {'; '.join(differences)}. Resume with those, or train into another "
                "folder."
            )

    def _load(self, state: Path, about: dict[str, Any]) -> None:
        try:
            self.accelerator.load_state(str(state))
            self.scale.load_state_dict(about.get("scale"))
        # readers of damaged weights raise anything
        except Exception as error:
            raise DamagedStateError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
        self.number = about["steps"]

    def _skip(self, damaged: dict[Path, str], state: Path) -> None:
        """Damaged states later than the one that is resumed from are renamed: the run writes its own under their names."""
        if not damaged:
            return
        log.warning("Image Prompt: %s damaged; resuming from %s", _listed(damaged), state.name)
        # after all processes have read them
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for path in damaged:
                set_aside(path, "damaged")
        self.accelerator.wait_for_everyone()


def _listed(damaged: dict[Path, str]) -> str:
    return ", ".join(f"{path.name} ({why})" for path, why in damaged.items())
