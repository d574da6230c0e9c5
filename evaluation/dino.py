"""Embeddings of pictures by DINO, for DINO-I (DreamBooth, arXiv 2208.12242, section 4.2)."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from .arguments import DINO
from .embedding import PictureEncoder


class Dino(PictureEncoder):
    """A vision transformer whose class token is the embedding."""

    what, usual = "DINO", DINO
    model_class, processor_class = "AutoModel", "AutoImageProcessor"
    # the released file has none
    unused = ("pooler.",)

    def values(self, image: Image.Image) -> Tensor:
        return self.processor([image], return_tensors="pt")["pixel_values"]

    def encoded(self, values: Tensor) -> Tensor:
        return self.model(pixel_values=values).last_hidden_state[:, 0]
