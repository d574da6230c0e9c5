"""Resizing in 8 bits by Pillow, as the de-facto pack resizes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....ipadapter_core.errors import SettingError

FILTERS = ("LANCZOS", "BICUBIC", "HAMMING", "BILINEAR", "BOX", "NEAREST")
# Names of 2023, which were torch's modes.
_OLD_NAMES = {"AREA": "BOX", "NEAREST-EXACT": "NEAREST"}


def filter_named(name: str) -> str:
    """One of FILTERS, whatever the case; names of old workflows are accepted. Raises SettingError."""
    known = _OLD_NAMES.get(name.upper(), name.upper())
    if known not in FILTERS:
        raise SettingError(f"unknown interpolation '{name}'; choose one of: {', '.join(FILTERS)}.")
    return known


def resize_8bit(images: Tensor, height: int, width: int, interpolation: str = "LANCZOS") -> Tensor:
    """Pictures (n, H, W, 3) in 0..1, cut to 8 bits (not rounded) -> (n, height, width, 3), exact in 8 bits."""
    resample = Image.Resampling[filter_named(interpolation)]
    eights = (images * 255).clamp(0, 255).to("cpu", torch.uint8).numpy()
    made = [np.asarray(Image.fromarray(eight).resize((width, height), resample)) for eight in eights]
    return torch.from_numpy(np.stack(made)).to(images) / 255
