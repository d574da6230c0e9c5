"""Losses and rates for accelerate's trackers: Weights & Biases, Comet, MLflow and others, each by its own package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import MissingPackageError, SettingError
from ..ipadapter_core.packages import load
from .callbacks import Callback, Step

PROJECT = "image-prompt"


def usable(names: str, folder: Path) -> list[Any]:
    """accelerate's trackers of these names, between commas. Raises SettingError for an unknown one, MissingPackageError."""
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    tracking = load("accelerate").tracking
    known: Mapping[str, Any] = tracking.LOGGER_TYPE_TO_CLASS
    if unknown := [name for name in wanted if name not in known]:
        raise SettingError(f"trackers names {', '.join(unknown)}; accelerate has {', '.join(known)}.")
    usable = tracking.filter_trackers(wanted, folder / "logs")
    found = {str(getattr(each, "value", each)) for each in usable}
    if missing := [name for name in wanted if name not in found]:
        raise MissingPackageError(
            f"trackers names {', '.join(missing)}, whose package is not installed. Install it, or take it out."
        )
    return usable


class Trackers(Callback):
    """names: of trackers, between commas. Raises as `usable`."""

    def __init__(self, accelerator: Any, names: str, folder: Path, config: Mapping[str, Any]):
        accelerator.log_with = usable(names, folder)
        accelerator.project_configuration.logging_dir = str(folder / "logs")
        accelerator.init_trackers(PROJECT, config={key: str(value) for key, value in config.items()})
        self.accelerator = accelerator

    def on_step_end(self, step: Step) -> None:
        values = {"loss": step.loss, "learning_rate": step.lr, "seconds": step.seconds}
        if step.held_out is not None:
            values["held_out_loss"] = step.held_out
        self.accelerator.log(values, step=step.number)

    def close(self) -> None:
        # ends the trackers alone
        for tracker in self.accelerator.trackers:
            tracker.finish()
