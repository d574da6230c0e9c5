"""A training job: the data, the output folder, and the training config; from a YAML file and flags."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ..ipadapter_core.errors import MissingFileError, SettingError
from ..ipadapter_core.training.config import TrainingConfig, typed


class Cache(str, Enum):
    """Where encoded pictures are cached. For a plus adapter each takes 1.5 MB, for a base adapter 0.3 MB."""

    DISK = "disk"
    MEMORY = "memory"
    NONE = "none"


@dataclass(frozen=True)
class Job:
    """Every field is a key of the config file and a flag. Models are names in ComfyUI's folders, or paths."""

    checkpoint: str = field(default="", metadata={"help": "the base model, SD1.5 or SDXL"})
    clip_vision: str = field(default="", metadata={"help": "the image encoder, such as ViT-H"})
    data: str = field(
        default="",
        metadata={"help": "folder of pictures with .txt captions, .jsonl/.json/.csv list, or .tar shards"},
    )
    out: str = field(
        default="out/training", metadata={"help": "folder for adapters, states, losses and samples"}
    )
    name: str = field(default="adapter", metadata={"help": "of the adapter files"})
    size: int = field(
        default=512, metadata={"help": "side of the square that is trained, in pixels; 1024 for SDXL"}
    )
    buckets: bool = field(
        default=False, metadata={"help": "train pictures in their own aspect instead of the square"}
    )
    cache: Cache = field(default=Cache.DISK, metadata={"help": "where encoded pictures are cached"})
    every: int = field(default=500, metadata={"help": "steps between saves"})
    start_from: str = field(
        default="", metadata={"help": "an adapter file to train further, instead of a new one"}
    )
    resume: bool = field(default=True, metadata={"help": "resume from the last state in the out folder"})
    tensorboard: bool = field(default=False, metadata={"help": "write a TensorBoard log too"})
    samples_every: int = field(
        default=0, metadata={"help": "steps between sheets of sample pictures, 0 for none"}
    )
    samples: int = field(default=4, metadata={"help": "pictures on a sheet"})
    samples_from: str = field(
        default="", metadata={"help": "pictures to sample from; else the first that are trained on"}
    )
    sample_steps: int = field(default=30, metadata={"help": "sampling steps of a sample picture"})

    def __post_init__(self) -> None:
        """Raises SettingError for settings that cannot work."""
        for name in ("checkpoint", "clip_vision", "data"):
            if not getattr(self, name):
                raise SettingError(
                    f"{name} is missing: {_help(name)}. Give it in the config file, or as --{flag(name)}."
                )
        if self.size < 64 or self.size % 64:
            raise SettingError(f"size is {self.size}; it must be a multiple of 64.")
        for name in ("every", "samples_every", "samples", "sample_steps"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 0 or more.")


def _help(name: str) -> str:
    return next(f.metadata["help"] for f in fields(Job) if f.name == name)


def flag(name: str) -> str:
    return name.replace("_", "-")


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, Job, TrainingConfig]:
    """Command line and config file -> where ComfyUI is, the job, the config. Flags win over the file."""
    parser = argparse.ArgumentParser(
        prog="python custom_nodes/image-prompt train",
        description="Trains an IP-Adapter on pictures with captions, as the paper does. Several GPUs or machines: put "
        "`accelerate launch` in the place of `python`.",
    )
    parser.add_argument(
        "--config", type=Path, help="YAML file with any of the settings below, - or _ in names"
    )
    parser.add_argument(
        "--comfyui", type=Path, help="ComfyUI's folder, where this pack is not in its custom_nodes"
    )
    parser.add_argument("--cpu", action="store_true", help="train on the processor")
    for group, kind in (("job", Job), ("training (defaults are the paper's)", TrainingConfig)):
        _add_flags(parser.add_argument_group(group), kind)
    given = vars(parser.parse_args(arguments))
    own = argparse.Namespace(**{name: given.pop(name) for name in ("config", "comfyui", "cpu")})
    values = _file(own.config) | {name: value for name, value in given.items() if value is not None}
    names = {f.name for f in fields(Job)}
    job = {name: value for name, value in values.items() if name in names}
    config = {name: value for name, value in values.items() if name not in names}
    defaults = {f.name: f.default for f in fields(Job)}
    return own, Job(**{n: typed(n, v, defaults[n]) for n, v in job.items()}), TrainingConfig.from_dict(config)


def _add_flags(group: Any, kind: type) -> None:
    for each in fields(kind):
        text = each.metadata.get("help", "")
        default = each.default.value if isinstance(each.default, Enum) else each.default
        shown = f"{text} (default: {default})" if default not in ("", None, MISSING) else text
        options: dict[str, Any] = {"help": shown.strip(), "default": None}
        if isinstance(each.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(each.default, Enum):
            options["choices"] = [choice.value for choice in type(each.default)]
        group.add_argument(f"--{flag(each.name)}", **options)


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        # of bytes: it detects UTF-8 and UTF-16 by their marks
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise MissingFileError(
            f"the config file {path} cannot be read: {error.strerror}. Check the path."
        ) from error
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise SettingError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingError(f"{path} holds {type(content).__name__}, not settings as 'name: value' lines.")
    return {str(name).replace("-", "_"): value for name, value in content.items()}
