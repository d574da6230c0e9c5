"""Which of a picture's captions counts; without torch, so that a command's help needs none."""

from enum import Enum


class Captions(str, Enum):
    """Which of a picture's captions counts. COCO has five of each; the paper does not say which it took."""

    FIRST = "first"
    MEAN = "mean"
    MAX = "max"
