"""Embeddings of pictures and texts by a CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .arguments import PAPERS as PAPERS
from .embedding import BATCH, PictureEncoder


class Clip(PictureEncoder):
    """A CLIPModel with its processor; raises what it cannot be loaded for when it is made, unless it is `lazy`."""

    what, usual = "CLIP", PAPERS
    model_class, processor_class = "CLIPModel", "CLIPProcessor"
    files = f"{PictureEncoder.files}, tokenizer"

    def __init__(self, name: str | Path = PAPERS, device: str | torch.device = "cpu", lazy: bool = False):
        super().__init__(name, device)
        if not lazy:
            self.load()

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


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    starts = range(0, len(items), BATCH)
    for start in tqdm(starts, desc="captions", unit="batch", disable=len(starts) < 2):
        yield items[start : start + BATCH]
