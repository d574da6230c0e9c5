"""The pictures of an Encode node: a batch, further ones of any size, and those of a folder, with a weight for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..host import Reference, folders
from ..ipadapter_core.errors import MismatchError, SettingError, shown
from ..ipadapter_core.pictures.preprocessing import Fit, Position
from ..ipadapter_core.pictures.reading import read_values
from .inputs import Input, weight_input

MORE_IMAGES = range(2, 7)
MOST_IN_FOLDER = 256


@dataclass(frozen=True, eq=False)
class Pictures:
    """references: each of pictures of one size. weights: one for each picture."""

    references: list[Reference]
    weights: list[float]

    def __len__(self) -> int:
        return len(self.weights)


def more_image_inputs() -> dict[str, Input]:
    """The last inputs of Encode: further images of any size with their weights, and a folder."""
    folder = "Folder in ComfyUI's input folder, all of whose pictures are read, after the images."
    made: dict[str, Input] = {}
    for n in MORE_IMAGES:
        made[f"image_{n}"] = ("IMAGE", {"tooltip": "A further picture or batch, of any size."})
        made[f"weight_{n}"] = weight_input(f"Weight of image_{n}.")
    return {**made, "folder": ("STRING", {"default": "", "tooltip": folder})}


def gathered(
    image: Tensor | None,
    mask: Tensor | None,
    fit: Fit | None,
    position: Position,
    written: Sequence[float],
    more: Mapping[str, Any],
    folder: str,
) -> Pictures:
    """written: none, one weight for all, one for each picture, or one for each of `image`. mask: of `image`.

    Raises MismatchError without a picture, SettingError or MissingFileError for the folder.
    """
    own = [] if image is None else [Reference(image, fit, position, mask)]
    given = [(more.get(f"image_{n}"), more.get(f"weight_{n}", 1.0)) for n in MORE_IMAGES]
    further = [
        (Reference(pictures, fit, position), weight) for pictures, weight in given if pictures is not None
    ]
    read = [Reference(each, fit, position) for each in _read(folder)]
    references = [*own, *(reference for reference, _ in further), *read]
    if not references:
        raise MismatchError("there is no image. Connect one, or name a folder of pictures.")
    factors = [1.0] * len(own) + [weight for _, weight in further] + [1.0] * len(read)
    counts = [len(reference.image) for reference in references]
    each = [factor for factor, count in zip(factors, counts, strict=True) for _ in range(count)]
    first = counts[0] if own else 0
    return Pictures(
        references, [a * b for a, b in zip(_spread(written, first, len(each)), each, strict=True)]
    )


def _spread(written: Sequence[float], first: int, count: int) -> list[float]:
    if len(written) in (0, 1):
        return [*(written or (1.0,))] * count
    if len(written) not in (first, count):
        either = f"{count}" if first in (0, count) else f"{first} or {count}"
        raise MismatchError(
            f"{len(written)} image weights for {either} images; give one for all, one for each, or none."
        )
    return [*written, *[1.0] * (count - len(written))]


def _read(folder: str) -> list[Tensor]:
    if not folder.strip():
        return []
    paths = folders.input_pictures(folder.strip())
    if len(paths) > MOST_IN_FOLDER:
        raise SettingError(
            f"the folder '{shown(folder)}' has {len(paths)} pictures, more than {MOST_IN_FOLDER}. Take some out."
        )
    return [_picture(path) for path in paths]


def _picture(path: Path) -> Tensor:
    try:
        return torch.from_numpy(read_values(path))[None]
    # decoders raise anything
    except Exception as error:
        raise SettingError(
            f"the picture {shown(path.name)} cannot be read: {shown(error)}. Take it out of the folder."
        ) from error
