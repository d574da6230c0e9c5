"""A training job: the data, the output folder, and the training config; from a YAML file and flags."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ..ipadapter_core.errors import MissingFileError, SettingError, shown
from ..ipadapter_core.training.config import HELP as CONFIG_HELP
from ..ipadapter_core.training.config import TrainingConfig, typed
from .data_sets import DataSet, data_sets, require_there


class Cache(str, Enum):
    """Where encoded pictures are cached. For a plus adapter each takes 1.5 MB, for a base adapter 0.3 MB."""

    DISK = "disk"
    MEMORY = "memory"
    NONE = "none"


class CacheDtype(str, Enum):
    """What encodings are cached in."""

    FP32 = "fp32"
    FP16 = "fp16"


# the line that `--help` shows of each setting
HELP = {
    "checkpoint": "the base model with its text encoders and VAE: a name in ComfyUI's folder, or a path",
    "clip_vision": "the image encoder, such as ViT-H: a name in ComfyUI's folder, or a path",
    "data": "folder of pictures with .txt captions, .jsonl/.json/.csv list, or .tar shards; several: a*3, b*0.5, with how "
    "often an epoch shows each",
    "out": "folder for adapters, states, losses and samples",
    "name": "of the adapter files",
    "size": "side of the square that is trained, in pixels; 1024 for SDXL",
    "buckets": "train pictures in their own aspect instead of the square",
    "cache": "where encoded pictures are cached",
    "every": "steps between saves",
    "start_from": "an adapter file to train further, instead of a new one",
    "resume": "resume from the last state in the out folder",
    "tensorboard": "write a TensorBoard log too",
    "samples_every": "steps between sheets of sample pictures, 0 for none",
    "samples": "pictures on a sheet",
    "samples_from": "pictures to sample from; else the first that are trained on",
    "sample_steps": "sampling steps of a sample picture",
    "reference": "rule for the picture that is the image prompt, such as 'faces/{stem}.png' beside each picture; a list may "
    "have a column 'reference' instead; else the picture itself",
    "cache_dtype": "fp16 halves the cache, and rounds what is trained on",
    "held_out": "pictures that are not trained on, to measure the loss with; as in data, and with its rule for references",
    "held_out_every": "steps between measurements of the held-out loss",
    "held_out_batches": "batches of a measurement",
    "face_model": "of faceid: a folder in models/insightface/models",
    "trackers": "accelerate's trackers, such as 'wandb' or 'wandb,tensorboard'",
    "diffusion_model": "in the place of checkpoint, with text_encoders and vae_file: a transformer by itself, as Flux.1 is",
    "text_encoders": "of diffusion_model, with commas between them: 't5xxl_fp16.safetensors, clip_l.safetensors'",
    "vae_file": "of diffusion_model, such as ae.safetensors",
}


@dataclass(frozen=True)
class Job:
    """Every field is a key of the config file and a flag; `HELP` says what each is."""

    checkpoint: str = ""
    clip_vision: str = ""
    data: str = ""
    out: str = "out/training"
    name: str = "adapter"
    size: int = 512
    buckets: bool = False
    cache: Cache = Cache.DISK
    every: int = 500
    start_from: str = ""
    resume: bool = True
    tensorboard: bool = False
    samples_every: int = 0
    samples: int = 4
    samples_from: str = ""
    sample_steps: int = 30
    reference: str = ""
    cache_dtype: CacheDtype = CacheDtype.FP32
    held_out: str = ""
    held_out_every: int = 500
    held_out_batches: int = 8
    face_model: str = "buffalo_l"
    trackers: str = ""
    diffusion_model: str = ""
    text_encoders: str = ""
    vae_file: str = ""

    def __post_init__(self) -> None:
        """Raises SettingError for settings that cannot work."""
        apart = ("diffusion_model", "text_encoders", "vae_file") if self.diffusion_model else ("checkpoint",)
        for name in (*apart, "clip_vision", "data"):
            if not getattr(self, name):
                raise SettingError(
                    f"{name} is missing: {HELP[name]}. Give it in the config file, or as --{flag(name)}."
                )
        if self.checkpoint and self.diffusion_model:
            raise SettingError(
                f"checkpoint is {shown(self.checkpoint)} and diffusion_model is {shown(self.diffusion_model)}; a base model "
                "is one of them. Leave one out."
            )
        if self.size < 64 or self.size % 64:
            raise SettingError(f"size is {self.size}; it must be a multiple of 64.")
        for name in ("every", "samples_every", "samples", "sample_steps"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("held_out_every", "held_out_batches"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more.")

    def require_files(self) -> None:
        """Raise MissingFileError for a path where nothing is, before anything is loaded."""
        for each in self.sets:
            require_there(each)
        for text in (self.held_out, self.samples_from):
            for each in data_sets(text) if text else ():
                require_there(each)
        if self.start_from and not Path(self.start_from).is_file():
            raise MissingFileError(
                f"start_from is {shown(self.start_from)}, and there is no such file. Check the path."
            )

    @property
    def models(self) -> list[tuple[str, str]]:
        """Kind of ComfyUI's folder and name of each model that is needed."""
        encoders = [("text_encoders", name.strip()) for name in self.text_encoders.split(",") if name.strip()]
        found = [("checkpoints", self.checkpoint), ("diffusion_models", self.diffusion_model), *encoders]
        found += [("vae", self.vae_file), ("clip_vision", self.clip_vision)]
        return [(kind, name) for kind, name in found if name]

    @property
    def sets(self) -> list[DataSet]:
        return data_sets(self.data, self.reference)


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
    parser.add_argument("--verbose", action="store_true", help="show what ComfyUI says too")
    for group, kind, lines in (
        ("job", Job, HELP),
        ("training (defaults are the paper's)", TrainingConfig, CONFIG_HELP),
    ):
        _add_flags(parser.add_argument_group(group), kind, lines)
    given = vars(parser.parse_args(arguments))
    own = argparse.Namespace(**{name: given.pop(name) for name in ("config", "comfyui", "cpu", "verbose")})
    values = _joined(_file(own.config)) | {name: value for name, value in given.items() if value is not None}
    names = {f.name for f in fields(Job)}
    job = {name: value for name, value in values.items() if name in names}
    config = {name: value for name, value in values.items() if name not in names}
    defaults = {f.name: f.default for f in fields(Job)}
    return own, Job(**{n: typed(n, v, defaults[n]) for n, v in job.items()}), TrainingConfig.from_dict(config)


def _joined(values: dict[str, Any]) -> dict[str, Any]:
    """With a list of data sets or text encoders as one text."""
    return {
        name: ", ".join(map(str, value))
        if name in ("data", "held_out", "text_encoders") and isinstance(value, list)
        else value
        for name, value in values.items()
    }


def _add_flags(group: Any, kind: type, lines: Mapping[str, str]) -> None:
    for each in fields(kind):
        text = lines[each.name]
        default = each.default.value if isinstance(each.default, Enum) else each.default
        line = f"{text} (default: {default})" if default not in ("", None, MISSING) else text
        options: dict[str, Any] = {"help": line.replace("%", "%%"), "default": None}
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
