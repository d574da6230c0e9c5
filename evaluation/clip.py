"""Embeddings of pictures and texts by a CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import CheckpointError, ImagePromptError, MissingFileError, SettingError, shown
from ..ipadapter_core.packages import load
from .reading import opened

# the model of table 1
PAPERS = "openai/clip-vit-large-patch14"
BATCH = 32


class Clip:
    """A CLIPModel with its processor. name: a folder with its files, or a name on the Hugging Face hub.

    Raises MissingFileError where there is none, CheckpointError for a damaged one, SettingError for an unknown device.
    """

    def __init__(self, name: str | Path = PAPERS, device: str | torch.device = "cpu"):
        transformers = load("transformers")
        self.name, self.device = str(name), _device(device)
        try:
            # tensors that a file lacks would be random numbers
            self.model, report = transformers.CLIPModel.from_pretrained(self.name, output_loading_info=True)
            self.processor: Any = transformers.CLIPProcessor.from_pretrained(self.name)
        # for a damaged folder transformers raises whatever its readers do
        except Exception as error:
            raise _unusable(self.name, " ".join(str(error).split()) or type(error).__name__) from error
        if lacking := sorted(report["missing_keys"]):
            raise _unusable(
                self.name, f"it lacks {len(lacking)} tensors of a CLIP model, such as {lacking[0]}"
            )
        self.model: Any = self.model.eval().to(self.device)

    @torch.inference_mode()
    def pictures(
        self, pictures: Sequence[Image.Image | Path], broken: dict[int, str] | None = None
    ) -> Tensor:
        """(n, d), by the processor's own preprocessing: short side 224, bicubic, centre crop.

        broken: receives those that cannot be read, by index, with the reason; they are left out of n. Without it they
        raise SettingError.
        """
        parts: list[Tensor] = []
        for batch in _batches(list(enumerate(pictures)), "pictures"):
            values = self._readable(batch, broken)
            if values:
                pooled = self.model.vision_model(pixel_values=torch.cat(values).to(self.device)).pooler_output
                parts.append(self._finite(self.model.visual_projection(pooled)))
        return torch.cat(parts) if parts else torch.zeros(0, self.model.config.projection_dim)

    def _readable(
        self, batch: Sequence[tuple[int, Image.Image | Path]], broken: dict[int, str] | None
    ) -> list[Tensor]:
        """(1, 3, side, side) each; one picture at a time is held in full size."""
        values: list[Tensor] = []
        for index, picture in batch:
            try:
                image = opened(picture)
            except ImagePromptError as error:
                if broken is None:
                    raise
                broken[index] = str(error)
            else:
                values.append(self.processor.image_processor([image], return_tensors="pt")["pixel_values"])
        return values

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(n, d); texts longer than the model's 77 tokens are cut."""
        parts: list[Tensor] = []
        length = self.model.config.text_config.max_position_embeddings
        for batch in _batches(texts, "captions"):
            tokens = self.processor.tokenizer(
                list(batch), padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(self.device)
            pooled = self.model.text_model(**tokens).pooler_output
            parts.append(self._finite(self.model.text_projection(pooled)))
        return torch.cat(parts)

    def _finite(self, embeddings: Tensor) -> Tensor:
        found = embeddings.float().cpu()
        if not found.isfinite().all():
            raise _unusable(self.name, "it gives numbers that are not finite; its weights are damaged")
        return found


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    # each backend has its own
    except Exception as error:
        reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise SettingError(
            f"the device '{shown(name)}' cannot be used ({reason}). Use cpu, cuda or mps."
        ) from error
    return device


def _unusable(name: str, why: str) -> ImagePromptError:
    kind = CheckpointError if Path(name).is_dir() else MissingFileError
    return kind(
        f"the CLIP model '{shown(name)}' could not be loaded ({shown(why)}). Give the folder of a model in transformers' "
        "layout (config.json, model.safetensors, preprocessor_config.json, tokenizer), such as a download of "
        f"https://huggingface.co/{PAPERS}, the paper's."
    )


def _batches(items: Sequence[Any], what: str) -> Iterator[Sequence[Any]]:
    starts = range(0, len(items), BATCH)
    for start in tqdm(starts, desc=what, unit="batch", disable=len(starts) < 2):
        yield items[start : start + BATCH]
