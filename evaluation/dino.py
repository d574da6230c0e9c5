"""Embeddings of pictures by DINO, for DINO-I (DreamBooth, arXiv 2208.12242, section 4.2)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from .arguments import DINO
from .embedding import PictureEncoder


class Dino(PictureEncoder):
    """A vision transformer whose class token is the embedding."""

    usual = DINO

    @cached_property
    def model(self) -> Any:
        return self.from_pretrained(self.transformers.AutoModel)

    @cached_property
    def processor(self) -> Any:
        try:
            return self.transformers.AutoImageProcessor.from_pretrained(self.name)
        # whatever its readers raise
        except Exception as error:
            raise self.unusable(" ".join(str(error).split()) or type(error).__name__) from error

    def values(self, image: Image.Image) -> Tensor:
        return self.processor([image], return_tensors="pt")["pixel_values"]

    def encoded(self, values: Tensor) -> Tensor:
        return self.model(pixel_values=values).last_hidden_state[:, 0]
