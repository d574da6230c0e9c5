"""What every image projection has in common, and the checks of its tensors' shapes.

Key names are those of the released files (tencent-ailab/IP-Adapter, ip_adapter/ip_adapter.py, resampler.py and
ip_adapter_faceid.py). `operations` is `torch.nn` or the host's drop-in with automatic casts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import UnknownAdapterError
from ..features import Features

Shape = tuple[int, ...]


class Sizes(NamedTuple):
    """What a projection reads and makes.

    feature_width: of the encoder output that it reads, 0 if none. tokens: per picture, None if one for each encoder
    token. token_width: of the tokens. identity_width: of the face embedding that it reads, 0 if none.
    """

    feature_width: int
    tokens: int | None
    token_width: int
    identity_width: int = 0


class Projection(nn.Module):
    """Features of n pictures -> image tokens (n, tokens, token_width)."""

    @classmethod
    def sizes(cls, shapes: Mapping[str, Shape], context_width: int, name: str) -> Sizes:
        """From the image_proj shapes of the file `name`. context_width: columns of the K'/V' matrices.

        Raises UnknownAdapterError where a tensor is missing or odd, or where the tokens do not fit those matrices.
        """
        raise NotImplementedError

    def tokens_of(self, features: Features) -> Tensor:
        """Image tokens (n, tokens, token_width), from those of the features that this network reads.

        Raises MismatchError if one of them is missing.
        """
        return self(features.known_encoder)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape], operations: Any = nn, **placement: Any) -> Projection:
        """The network that tensors of these shapes fill; `placement` is dtype and device."""
        raise NotImplementedError


def matrix(name: str, key: str, shapes: Mapping[str, Shape]) -> Shape:
    """(rows, columns) of one tensor. Raises UnknownAdapterError if it is missing or no matrix."""
    return dims(name, key, shapes, 2)


def dims(name: str, key: str, shapes: Mapping[str, Shape], count: int) -> Shape:
    """Shape of one tensor. Raises UnknownAdapterError if it is missing or has not `count` dimensions."""
    shape = shapes.get(key)
    if shape is None or len(shape) != count:
        raise UnknownAdapterError(
            f"{name}: image_proj.{key} is {'missing' if shape is None else f'of shape {shape}'}, "
            f"expected a tensor of {count} dimensions. The file is damaged; download it again."
        )
    return shape


def whole_tokens(name: str, key: str, rows: int, width: int) -> int:
    """How many tokens of `width` the rows of a matrix make. Raises UnknownAdapterError if they do not come out even."""
    if rows % width:
        raise UnknownAdapterError(
            f"{name}: {key} has {rows} rows, not a multiple of {width}. Download it again."
        )
    return rows // width


def agree(name: str, key: str, shape: Shape, context_width: int) -> None:
    """Raise UnknownAdapterError unless a tensor of this shape makes tokens of the width that W'k and W'v read."""
    if shape[:1] != (context_width,):
        raise UnknownAdapterError(
            f"{name}: image_proj.{key} of shape {shape} does not make tokens of width {context_width}, which the "
            "attention matrices read. The file mixes two adapters; download it again."
        )
