"""The command: from a config file to a trained adapter."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ..__main__ import find_comfyui, start_comfyui
from ..ipadapter_core.checkpoint import read_checkpoint
from ..ipadapter_core.errors import ImagePromptError
from ..ipadapter_core.training.base import Wish
from ..ipadapter_core.training.recipe import Recipe
from ..ipadapter_core.training.trainee import Trainee
from .encoded import Disk, Rows
from .job import Cache, Job, parse
from .loop import Output, Watcher
from .pictures import Pictures, find_pictures
from .samples import Samples
from .session import prepare, require_extras, sizes_of
from .watch import All, Bar, Board, Losses, Signals

log = logging.getLogger("image_prompt.training")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 after an error that the user can mend, told in a sentence. 130 after Ctrl-C, with all steps saved."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        own, job, recipe = parse(arguments)
        start_comfyui(find_comfyui(own.comfyui), own.cpu)
        return train(job, recipe)
    except (ImagePromptError, ImportError) as error:
        log.error("%s", error)
        return 1


def train(job: Job, recipe: Recipe) -> int:
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
    trainer = prepare(recipe, base, pictures, sizes_of(job.size, job.buckets), _store(job), output, start)
    accelerator, trainee = trainer.accelerator, trainer.trainee
    resumed = trainer.resume() if job.resume else 0
    if not accelerator.is_main_process:
        with Signals().heeded() as signals:
            trainer.run(signals)
        return 0
    log.info("%s", pictures.summary)
    log.info(
        "training %s parameters, from step %d of %d", f"{trainee.parameter_count:,}", resumed, recipe.steps
    )
    with Signals().heeded() as signals:
        path = trainer.run(All(*_watchers(job, recipe, base, trainee, pictures, resumed), signals))
    log.info("%s after %d of %d steps%s", path, trainer.number, recipe.steps, _left_out(pictures))
    return 130 if signals.stopping else 0


def _store(job: Job) -> MutableMapping[str, Rows] | None:
    if job.cache is Cache.DISK:
        return Disk(Path(job.out) / "cache")
    return {} if job.cache is Cache.MEMORY else None


def _watchers(
    job: Job, recipe: Recipe, base: Any, trainee: Trainee, pictures: Pictures, resumed: int
) -> list[Watcher]:
    folder = Path(job.out)
    losses = Losses(folder, resumed)
    watchers: list[Watcher] = [losses, Bar(recipe.steps, resumed, losses)]
    if job.tensorboard:
        watchers.append(Board(folder, resumed))
    if job.samples_every:
        shown = find_pictures(job.samples_from) if job.samples_from else pictures
        wishes = [
            Wish(shown.picture(n), shown.records[n].caption, job.size, n, job.sample_steps)
            for n in range(min(job.samples, len(shown)))
        ]
        watchers.append(Samples(base, trainee, wishes, folder, job.samples_every, first=not resumed))
    return watchers


def _left_out(pictures: Pictures) -> str:
    return f"; left out: {', '.join(pictures.left_out)}" if pictures.left_out else ""


if __name__ == "__main__":
    sys.exit(main())
