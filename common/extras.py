"""The packages that only training and evaluation need."""

from __future__ import annotations

from typing import Any

from ..ipadapter_core.packages import load, need

# by module, what pip calls it
PACKAGES = {name: name for name in ("accelerate", "matplotlib", "tensorboard", "transformers")}


def extra(name: str) -> Any:
    """The module; raises MissingFileError with the line that installs it."""
    return load(name, f"training and evaluation need {name.split('.')[0]}", PACKAGES)


def require(*names: str) -> None:
    """Raise MissingFileError with the one line that installs what is missing of these."""
    need(f"training and evaluation need {' and '.join(names)}", {name: PACKAGES[name] for name in names})
