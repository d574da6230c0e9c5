"""Embeddings of pictures by an encoder: decoded in parallel, encoded in batches."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..ipadapter_core.errors import CheckpointError, ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.packages import load
from .reading import opened

BATCH, DECODERS = 32, 8
HUB = "https://huggingface.co/"
# of a model in transformers' layout; which of them changed is in their sizes and times
_STAMPED = ("config.json", "preprocessor_config.json", "*.safetensors", "*.bin")


class PictureEncoder(ABC):
    """A model of transformers with its preprocessing, loaded when it is first needed. name: a folder with its files, or a
    name on the Hugging Face hub.

    Raises MissingFileError where there is none, CheckpointError for a damaged one, SettingError for an unknown device.
    """

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
        cached = self.transformers.utils.cached_file(
            self.name, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
        return f"{self.name}@{Path(cached).parent.name[:12]}" if cached else self.name

    @abstractmethod
    def values(self, image: Image.Image) -> Tensor:
        """Pixel values (1, 3, side, side)."""

    @abstractmethod
    def encoded(self, values: Tensor) -> Tensor:
        """Embeddings (n, d) of pixel values on the device."""

    def pictures(
        self, pictures: Sequence[Image.Image | Path], broken: dict[int, str] | None = None
    ) -> Tensor:
        """(n, d), by the model's own preprocessing.

        broken: receives those that cannot be read, by index, with the reason; they are left out of n. Without it they
        raise SettingError.
        """
        parts = [rows for _, rows in self.batches(pictures, {} if broken is None else broken)]
        return torch.cat(parts) if parts else torch.zeros(0, 1)

    @torch.inference_mode()
    def batches(
        self, pictures: Sequence[Image.Image | Path], broken: dict[int, str]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(indices, their embeddings): while one batch is encoded, the next is decoded."""
        starts = range(0, len(pictures), BATCH)
        with ThreadPoolExecutor(DECODERS) as pool:
            waiting = [self._decode(pool, pictures, start) for start in starts[:1]]
            for number, _ in enumerate(starts):
                waiting += [self._decode(pool, pictures, start) for start in starts[number + 1 : number + 2]]
                found = self._readable(waiting.pop(0), broken)
                if found:
                    yield (
                        list(found),
                        self.finite(self.encoded(torch.cat(list(found.values())).to(self.device))),
                    )

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

    def from_pretrained(self, kind: Any) -> Any:
        """A model of this class, ready to run. Tensors that a file lacks would be random numbers: they raise."""
        try:
            model, report = kind.from_pretrained(self.name, output_loading_info=True)
        # for a damaged folder transformers raises whatever its readers do
        except Exception as error:
            raise self.unusable(" ".join(str(error).split()) or type(error).__name__) from error
        if lacking := sorted(report["missing_keys"]):
            raise self.unusable(f"it lacks {len(lacking)} tensors, such as {lacking[0]}")
        return model.eval().to(self.device)

    def unusable(self, why: str) -> ImagePromptError:
        """The error for a model that cannot be loaded."""
        kind = CheckpointError if Path(self.name).is_dir() else MissingFileError
        return kind(
            f"the model '{shown(self.name)}' could not be loaded ({shown(why)}). Give the folder of a model in transformers' "
            f"layout (config.json, model.safetensors, preprocessor_config.json), such as a download of {HUB}{self.usual}."
        )

    @property
    @abstractmethod
    def usual(self) -> str:
        """The model's usual name on the hub."""


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
