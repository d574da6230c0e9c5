"""Embeddings of pictures by an encoder: decoded in parallel, encoded in batches."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import torch
from PIL import Image
from torch import Tensor

from ..ipadapter_core.errors import CheckpointError, ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.packages import load
from .reading import opened

BATCH, DECODERS = 32, 8
# that the hub may take to answer at all
NETWORK_SECONDS = 8
HUB = "https://huggingface.co/"
# of a model in transformers' layout; which of them changed is in their sizes and times
_STAMPED = ("config.json", "preprocessor_config.json", "*.safetensors", "*.bin")


class PictureEncoder(ABC):
    """A model of transformers with its preprocessing, loaded when it is first needed. name: a folder with its files, or a
    name on the Hugging Face hub.

    what, usual: what it is called in messages, and its usual name on the hub. Raises MissingFileError where there is none,
    CheckpointError for a damaged one, SettingError for an unknown device.
    """

    what: str
    usual: str
    model_class: str
    processor_class: str
    files = "config.json, model.safetensors, preprocessor_config.json"
    # beginnings of the names of tensors that the embedding does not need
    unused: tuple[str, ...] = ()

    def __init__(self, name: str | Path, device: str | torch.device = "cpu"):
        self.transformers: Any = load("transformers")
        self.name, self.device = str(name), _device(device)

    @cached_property
    def identity(self) -> str:
        """Which weights these are, without loading them: of a folder by its files' sizes and times, of a name by the
        revision that is on this machine."""
        folder = Path(self.name)
        if folder.is_dir():
            files = sorted(file for pattern in _STAMPED for file in folder.glob(pattern))
            stamps = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
            digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:12]
            return f"{folder.name}@{digest}"
        cached = self._cached()
        return f"{self.name}@{cached.parent.name[:12]}" if cached else self.name

    def _cached(self) -> Path | None:
        """The config file on this machine of a name on the hub."""
        try:
            found = self.transformers.utils.cached_file(self.name, "config.json", local_files_only=True)
        # not on this machine, or no name of a model: loading it says so
        except Exception:
            return None
        return Path(found) if found else None

    def _require_network(self) -> None:
        """Raise MissingFileError in seconds where a model is neither here nor to be had; its readers try for a minute."""
        if Path(self.name).is_dir() or self._cached():
            return
        url = f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{quote(self.name)}/resolve/main/config.json"
        try:
            urlopen(Request(url, method="HEAD"), timeout=NETWORK_SECONDS).close()
        # the hub's own answer: its readers know what it means
        except HTTPError:
            return
        except (OSError, ValueError) as error:
            raise self.unusable(f"it is not on this machine, and {url} does not answer: {error}") from error

    def load(self) -> None:
        """Load the weights now; else they are loaded when they are first needed."""
        if "model" not in self.__dict__:
            self._require_network()
        _ = self.model, self.processor

    @cached_property
    def model(self) -> Any:
        """Ready to run. Tensors that a file lacks would be random numbers: they raise."""
        try:
            kind = getattr(self.transformers, self.model_class)
            model, report = kind.from_pretrained(self.name, output_loading_info=True)
        # for a damaged folder transformers raises whatever its readers do
        except Exception as error:
            raise self.unusable(error) from error
        if lacking := sorted(key for key in report["missing_keys"] if not key.startswith(self.unused)):
            raise self.unusable(f"it lacks {len(lacking)} tensors of its model, such as {lacking[0]}")
        return model.eval().to(self.device)

    @cached_property
    def processor(self) -> Any:
        try:
            return getattr(self.transformers, self.processor_class).from_pretrained(self.name)
        # whatever its readers raise
        except Exception as error:
            raise self.unusable(error) from error

    @abstractmethod
    def values(self, image: Image.Image) -> Tensor:
        """Pixel values (1, 3, side, side)."""

    @abstractmethod
    def encoded(self, values: Tensor) -> Tensor:
        """Embeddings (n, d) of pixel values on the device."""

    def pictures(self, pictures: Sequence[Image.Image | Path]) -> Tensor:
        """(n, d), by the model's own preprocessing. Raises SettingError for one that cannot be read."""
        broken: dict[int, str] = {}
        parts = [rows for _, rows in self.batches(pictures, broken)]
        for why in broken.values():
            raise SettingError(why)
        return torch.cat(parts) if parts else torch.zeros(0, 1)

    @torch.inference_mode()
    def batches(
        self, pictures: Sequence[Image.Image | Path], broken: dict[int, str]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(indices, their embeddings): while one batch is encoded, the next is decoded. The model is loaded only where a
        picture can be read.

        broken: receives those that cannot be read, by index, with the reason; they are left out.
        """
        first = self._first_readable(pictures, broken)
        if first is None:
            return
        # before threads use it
        self.load()
        starts = range(first, len(pictures), BATCH)
        with ThreadPoolExecutor(DECODERS) as pool:
            waiting = [self._decode(pool, pictures, start) for start in starts[:1]]
            for number, _ in enumerate(starts):
                waiting += [self._decode(pool, pictures, start) for start in starts[number + 1 : number + 2]]
                found = self._readable(waiting.pop(0), broken)
                if found:
                    values = torch.cat(list(found.values())).to(self.device)
                    yield list(found), self.finite(self.encoded(values))

    def _first_readable(self, pictures: Sequence[Image.Image | Path], broken: dict[int, str]) -> int | None:
        for index, picture in enumerate(pictures):
            try:
                opened(picture)
            except ImagePromptError as error:
                broken[index] = str(error)
            else:
                return index
        return None

    def _decode(
        self, pool: ThreadPoolExecutor, pictures: Sequence[Image.Image | Path], start: int
    ) -> dict[int, Future[Tensor]]:
        part = pictures[start : start + BATCH]
        return {start + n: pool.submit(self._values_of, picture) for n, picture in enumerate(part)}

    def _values_of(self, picture: Image.Image | Path) -> Tensor:
        return self.values(opened(picture))

    def _readable(self, reading: dict[int, Future[Tensor]], broken: dict[int, str]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for index, future in reading.items():
            try:
                found[index] = future.result()
            except ImagePromptError as error:
                broken[index] = str(error)
        return found

    def finite(self, embeddings: Tensor) -> Tensor:
        """As fp32 on the CPU. Raises CheckpointError for numbers that are not finite."""
        found = embeddings.float().cpu()
        if not found.isfinite().all():
            raise self.unusable("it gives numbers that are not finite; its weights are damaged")
        return found

    def unusable(self, why: str | Exception) -> ImagePromptError:
        """The error for a model that cannot be loaded."""
        reason = shown(" ".join(str(why).split()) or type(why).__name__)
        kind = CheckpointError if Path(self.name).is_dir() else MissingFileError
        return kind(
            f"the {self.what} model '{shown(self.name)}' could not be loaded ({reason}). Give the folder of a model in "
            f"transformers' layout ({self.files}), such as a download of {HUB}{self.usual}."
        )


def _device(name: str | torch.device) -> torch.device:
    """auto: the accelerator of this machine, as ComfyUI takes it, else the processor."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    # each backend has its own
    except Exception as error:
        reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise SettingError(
            f"the device '{shown(name)}' cannot be used ({reason}). Use auto, cpu, cuda or mps."
        ) from error
    return device
