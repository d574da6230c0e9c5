"""A job in ComfyUI's process: pictures, models, the trainer, and what is called while it runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host import base_models, folders
from ..ipadapter_core.checkpoint import read_checkpoint
from ..ipadapter_core.training.base import SampleRequest
from ..ipadapter_core.training.config import TrainingConfig
from ..ipadapter_core.variant import Variant
from .cache import Disk, Rows
from .callbacks import Callback, CallbackList, Signals, TensorBoard
from .data_sets import data_sets
from .encoded import Encodings
from .held_out import HeldOut
from .job import Cache, CacheDtype, Job
from .loop import Output, Trainer
from .losses import Losses, ProgressBar
from .pictures import Pictures, find_pictures
from .samples import Samples
from .session import Setup, prepare, require_extras, sizes_of
from .trackers import Trackers, usable

log = logging.getLogger("image_prompt.training")


@dataclass(frozen=True)
class _Run:
    job: Job
    config: TrainingConfig
    base: Any
    pictures: Pictures
    trainer: Trainer
    resumed: int


def train(job: Job, config: TrainingConfig) -> int:
    """Run a job. ComfyUI's code must be in the process."""
    require_extras()
    if job.trackers:
        usable(job.trackers, Path(job.out))
    log.info("reading pictures")
    pictures = find_pictures(*job.sets)
    held_out = find_pictures(*data_sets(job.held_out, job.reference)) if job.held_out else None
    start = read_checkpoint(job.start_from) if job.start_from else None
    log.info("loading models")
    base = base_models.load_base(_base_files(job, config))
    setup = Setup(
        sizes_of(job.size, job.buckets),
        Output(Path(job.out), job.name, job.every),
        _store(job),
        job.cache_dtype is CacheDtype.FP16,
        start,
    )
    trainer = prepare(config, base, pictures, setup)
    if held_out is not None:
        data = Encodings(base, trainer.config, held_out, setup.sizes, setup.store, setup.half)
        trainer.held_out = HeldOut(data, job.held_out_every, job.held_out_batches)
    resumed = trainer.resume() if job.resume else 0
    return _run(_Run(job, config, base, pictures, trainer, resumed))


def _base_files(job: Job, config: TrainingConfig) -> base_models.BaseFiles:
    paths: dict[str, list[str]] = {}
    for kind, name in job.models:
        paths.setdefault(kind, []).append(folders.model_path(kind, name))
    [clip_vision], encoders = paths["clip_vision"], tuple(paths.get("text_encoders", ()))
    checkpoint, diffusion_model, vae = (
        "".join(paths.get(kind, ())) for kind in ("checkpoints", "diffusion_models", "vae")
    )
    face_model = job.face_model if config.kind is Variant.FACEID else ""
    return base_models.BaseFiles(clip_vision, checkpoint, diffusion_model, encoders, vae, face_model)


def _run(run: _Run) -> int:
    trainer, pictures = run.trainer, run.pictures
    if not trainer.accelerator.is_main_process:
        with Signals().installed() as signals:
            trainer.run(signals)
        return 0
    log.info("%s", pictures.summary)
    log.info("%s", _cache_line(run))
    count = f"{trainer.trainable.parameter_count:,}"
    log.info("training %s parameters, from step %d of %d", count, run.resumed, run.config.steps)
    with Signals().installed() as signals, _callbacks(run) as callbacks:
        path = trainer.run(CallbackList(*callbacks, signals))
    log.info("%s after %d of %d steps%s", path, trainer.number, run.config.steps, _left_out(pictures))
    return 130 if signals.should_stop else 0


def _store(job: Job) -> MutableMapping[str, Rows] | None:
    if job.cache is Cache.DISK:
        return Disk(Path(job.out) / "cache")
    return {} if job.cache is Cache.MEMORY else None


def _cache_line(run: _Run) -> str:
    """How much room the encodings of all pictures take."""
    data: Any = run.trainer.data
    if data.store is None:
        return "pictures are encoded every time they are shown"
    size = f"the encodings of all pictures take {_in_words(data.bytes)}"
    if not isinstance(data.store, Disk):
        return f"{size} of memory"
    free = data.store.free()
    line = f"{size} in {data.store.folder}, where {_in_words(free)} are free"
    return line if data.bytes <= free else f"{line}: those that are not there yet may not fit"


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextlib.contextmanager
def _callbacks(run: _Run) -> Iterator[list[Callback]]:
    job, folder = run.job, Path(run.job.out)
    losses = Losses(folder, run.resumed)
    bar = ProgressBar(run.config.steps, run.resumed, losses)
    callbacks: list[Callback] = [losses, bar]
    if job.tensorboard:
        callbacks.append(TensorBoard(folder, run.resumed))
    if job.trackers:
        callbacks.append(Trackers(run.trainer.accelerator, job.trackers, folder, run.config.to_dict()))
    try:
        if job.samples_every:
            requests = _samples(job, run.pictures)
            trainable, every = run.trainer.trainable, job.samples_every
            callbacks.append(Samples(run.base, trainable, requests, folder, every, first=not run.resumed))
        yield callbacks
    finally:
        for callback in callbacks:
            callback.close()


def _samples(job: Job, pictures: Pictures) -> list[SampleRequest]:
    shown = find_pictures(*data_sets(job.samples_from)) if job.samples_from else pictures
    return [
        SampleRequest(shown.reference(n), shown.records[n].caption, job.size, n, job.sample_steps)
        for n in range(min(job.samples, len(shown)))
    ]


def _left_out(pictures: Pictures) -> str:
    return f"; left out: {', '.join(pictures.left_out)}" if pictures.left_out else ""
