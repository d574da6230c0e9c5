"""Embeddings of pictures and texts by a CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..common.extras import extra
from ..common.pictures import read_image
from ..ipadapter_core.errors import MissingFileError

PAPERS = "openai/clip-vit-large-patch14"  # the model of table 1
BATCH = 32


class Clip:
    """A CLIPModel with its processor. name: a folder with its files, or a name on the Hugging Face hub."""

    def __init__(self, name: str = PAPERS, device: str | torch.device = "cpu"):
        transformers = extra("transformers")
        try:
            self.model: Any = transformers.CLIPModel.from_pretrained(name).eval().to(device)
            self.processor: Any = transformers.CLIPProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise MissingFileError(
                f"the CLIP model '{name}' could not be loaded ({' '.join(str(error).split())[:200]}). Give the folder of a "
                f"model in transformers' layout (config.json, model.safetensors, preprocessor_config.json, tokenizer), such "
                f"as a download of https://huggingface.co/{PAPERS}, the paper's."
            ) from error
        self.device = torch.device(device)

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image | Path]) -> Tensor:
        """(n, d), by the processor's own preprocessing: short side 224, bicubic, cut at the centre."""
        parts: list[Tensor] = []
        for batch in _batches(pictures, "pictures"):
            images = [read_image(picture) for picture in batch]
            values = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            pooled = self.model.vision_model(pixel_values=values.to(self.device)).pooler_output
            parts.append(self.model.visual_projection(pooled).float().cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(n, d); what is longer than the model's 77 tokens is cut."""
        parts: list[Tensor] = []
        length = self.model.config.text_config.max_position_embeddings
        for batch in _batches(texts, "captions"):
            tokens = self.processor.tokenizer(
                list(batch), padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(self.device)
            pooled = self.model.text_model(**tokens).pooler_output
            parts.append(self.model.text_projection(pooled).float().cpu())
        return torch.cat(parts)


def _batches(items: Sequence[Any], what: str) -> Iterator[Sequence[Any]]:
    starts = range(0, len(items), BATCH)
    for start in tqdm(starts, desc=what, unit="batch", disable=len(starts) < 2):
        yield items[start : start + BATCH]
