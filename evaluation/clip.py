"""Embeddings of pictures and texts by a CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..ipadapter_core.errors import CheckpointError, ImagePromptError, MissingFileError, shown
from .arguments import PAPERS as PAPERS
from .embedding import BATCH, HUB, PictureEncoder


class Clip(PictureEncoder):
    """A CLIPModel with its processor; raises what it cannot be loaded for when it is made, unless it is `lazy`."""

    usual = PAPERS

    def __init__(self, name: str | Path = PAPERS, device: str | torch.device = "cpu", lazy: bool = False):
        super().__init__(name, device)
        if not lazy:
            self.load()

    def load(self) -> None:
        """Load the weights now."""
        _ = self.model, self.processor

    @cached_property
    def model(self) -> Any:
        return self.from_pretrained(self.transformers.CLIPModel)

    @cached_property
    def processor(self) -> Any:
        try:
            return self.transformers.CLIPProcessor.from_pretrained(self.name)
        # whatever its readers raise
        except Exception as error:
            raise self.unusable(" ".join(str(error).split()) or type(error).__name__) from error

    def values(self, image: Image.Image) -> Tensor:
        """Short side 224, bicubic, centre crop."""
        return self.processor.image_processor([image], return_tensors="pt")["pixel_values"]

    def encoded(self, values: Tensor) -> Tensor:
        return self.model.visual_projection(self.model.vision_model(pixel_values=values).pooler_output)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(n, d); texts longer than the model's 77 tokens are cut."""
        parts: list[Tensor] = []
        length = self.model.config.text_config.max_position_embeddings
        for batch in _batches(texts):
            tokens = self.processor.tokenizer(
                list(batch), padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(self.device)
            pooled = self.model.text_model(**tokens).pooler_output
            parts.append(self.finite(self.model.text_projection(pooled)))
        return torch.cat(parts)

    def unusable(self, why: str) -> ImagePromptError:
        kind = CheckpointError if Path(self.name).is_dir() else MissingFileError
        return kind(
            f"the CLIP model '{shown(self.name)}' could not be loaded ({shown(why)}). Give the folder of a model in "
            "transformers' layout (config.json, model.safetensors, preprocessor_config.json, tokenizer), such as a download "
            f"of {HUB}{PAPERS}, the paper's."
        )


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    starts = range(0, len(items), BATCH)
    for start in tqdm(starts, desc="captions", unit="batch", disable=len(starts) < 2):
        yield items[start : start + BATCH]
