"""From pictures and a recipe to a trainer that is ready to run; the same for the command and the node."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.packages import require
from ..ipadapter_core.training.base import Base
from ..ipadapter_core.training.batches import Size, buckets
from ..ipadapter_core.training.recipe import Recipe
from ..ipadapter_core.training.trainee import new_trainee, trainee_from
from .encoded import Encodings, Rows
from .launch import accelerator_for, as_launched
from .loop import Output, Trainer
from .pictures import Pictures


def sizes_of(side: int, in_buckets: bool) -> Sequence[Size]:
    """The square alone, as the paper trains, or sizes of its area in all aspects."""
    return buckets(side) if in_buckets else [(side, side)]


def prepare(
    recipe: Recipe,
    base: Base,
    pictures: Pictures,
    sizes: Sequence[Size],
    store: MutableMapping[str, Rows] | None,
    output: Output,
    start: Checkpoint | None = None,
) -> Trainer:
    """A trainer at step 0. start: an adapter to go on from; else a new one. What is not installed is told first."""
    require_extras()
    recipe = as_launched(recipe)
    base.compute_in(recipe)
    accelerator: Any = accelerator_for(recipe, base.device)
    if accelerator.is_main_process:
        output.require_writable(recipe.steps)
    data = Encodings(base, recipe.kind, pictures, sizes, store)
    if start is None:
        trainee = new_trainee(recipe, base.unet, base.sites, data.feature_width)
    else:
        trainee = trainee_from(start, recipe, base.sites)
    return Trainer(recipe, base, data, trainee, output, accelerator)


def require_extras() -> None:
    """What every training needs, told before anything is loaded."""
    require("accelerate", "matplotlib")
