"""From pictures and a config to a trainer, the same for the command and the node."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.packages import require
from ..ipadapter_core.training.base import Base
from ..ipadapter_core.training.batches import Size, buckets
from ..ipadapter_core.training.config import TrainingConfig
from ..ipadapter_core.training.trainable import new_trainable, trainable_from
from .cache import Rows
from .encoded import Encodings
from .launch import accelerator_for, as_launched
from .loop import Output, Trainer
from .pictures import Pictures


def sizes_of(side: int, in_buckets: bool) -> Sequence[Size]:
    """The square alone, as the paper trains, or sizes of about its area in all aspects."""
    return buckets(side) if in_buckets else [(side, side)]


@dataclass(frozen=True)
class Setup:
    """sizes: that pictures are trained in. store: the cache, None to encode every time. half: cached in half precision.
    start: an adapter to train further; else a new one."""

    sizes: Sequence[Size]
    output: Output
    store: MutableMapping[str, Rows] | None = None
    half: bool = False
    start: Checkpoint | None = None


def prepare(config: TrainingConfig, base: Base, pictures: Pictures, setup: Setup) -> Trainer:
    """A trainer at step 0. Raises MissingPackageError first."""
    require_extras()
    config = as_launched(config)
    base.compute_in(config)
    accelerator: Any = accelerator_for(config, base.device)
    if accelerator.is_main_process:
        setup.output.require_writable(config.steps)
    data = Encodings(base, config, pictures, setup.sizes, setup.store, setup.half)
    if setup.start is None:
        trainable = new_trainable(config, base.unet, base.sites, data.feature_width)
    else:
        trainable = trainable_from(setup.start, config, base.sites)
    return Trainer(config, base, data, trainable, setup.output, accelerator)


def require_extras() -> None:
    """What every training needs, checked before anything is loaded. Raises MissingPackageError."""
    require("accelerate", "matplotlib")
