"""The command: from a config file to a trained adapter."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ..__main__ import find_comfyui, start_comfyui
from ..ipadapter_core.checkpoint import read_checkpoint
from ..ipadapter_core.errors import ImagePromptError
from ..ipadapter_core.training.base import SampleRequest
from ..ipadapter_core.training.config import TrainingConfig
from ..ipadapter_core.training.trainable import TrainableAdapter
from .callbacks import Callback, CallbackList, Signals, TensorBoard
from .encoded import Disk, Rows
from .job import Cache, Job, parse
from .loop import Output
from .losses import Losses, ProgressBar
from .pictures import Pictures, find_pictures
from .samples import Samples
from .session import prepare, require_extras, sizes_of

log = logging.getLogger("image_prompt.training")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 after an error that the user can mend, logged as a sentence. 130 after Ctrl-C, with all steps saved."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        own, job, config = parse(arguments)
        start_comfyui(find_comfyui(own.comfyui), own.cpu)
        return train(job, config)
    except (ImagePromptError, ImportError) as error:
        log.error("%s", error)
        return 1


def train(job: Job, config: TrainingConfig) -> int:
    """Run a job. ComfyUI's code must be in the process."""
    # only now: they import the host's code
    from ..host import folders
    from ..host.training import load_base

    require_extras()
    pictures = find_pictures(job.data)
    start = read_checkpoint(job.start_from) if job.start_from else None
    base = load_base(
        folders.model_path("checkpoints", job.checkpoint), folders.model_path("clip_vision", job.clip_vision)
    )
    output = Output(Path(job.out), job.name, job.every)
    trainer = prepare(config, base, pictures, sizes_of(job.size, job.buckets), _store(job), output, start)
    accelerator, trainable = trainer.accelerator, trainer.trainable
    resumed = trainer.resume() if job.resume else 0
    if not accelerator.is_main_process:
        with Signals().installed() as signals:
            trainer.run(signals)
        return 0
    log.info("%s", pictures.summary)
    log.info(
        "training %s parameters, from step %d of %d", f"{trainable.parameter_count:,}", resumed, config.steps
    )
    with Signals().installed() as signals:
        path = trainer.run(
            CallbackList(*_callbacks(job, config, base, trainable, pictures, resumed), signals)
        )
    log.info("%s after %d of %d steps%s", path, trainer.number, config.steps, _left_out(pictures))
    return 130 if signals.should_stop else 0


def _store(job: Job) -> MutableMapping[str, Rows] | None:
    if job.cache is Cache.DISK:
        return Disk(Path(job.out) / "cache")
    return {} if job.cache is Cache.MEMORY else None


def _callbacks(
    job: Job, config: TrainingConfig, base: Any, trainable: TrainableAdapter, pictures: Pictures, resumed: int
) -> list[Callback]:
    folder = Path(job.out)
    losses = Losses(folder, resumed)
    callbacks: list[Callback] = [losses, ProgressBar(config.steps, resumed, losses)]
    if job.tensorboard:
        callbacks.append(TensorBoard(folder, resumed))
    if job.samples_every:
        shown = find_pictures(job.samples_from) if job.samples_from else pictures
        requests = [
            SampleRequest(shown.picture(n), shown.records[n].caption, job.size, n, job.sample_steps)
            for n in range(min(job.samples, len(shown)))
        ]
        callbacks.append(Samples(base, trainable, requests, folder, job.samples_every, first=not resumed))
    return callbacks


def _left_out(pictures: Pictures) -> str:
    return f"; left out: {', '.join(pictures.left_out)}" if pictures.left_out else ""
