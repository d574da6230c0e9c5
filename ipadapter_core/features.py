"""What an image projection reads: CLIP vision features, face embeddings, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import MismatchError


@dataclass(frozen=True, eq=False)
class Features:
    """Features of n pictures before projection.

    encoder: CLIP vision features (n, width) or (n, encoder tokens, width). identity: face embeddings (n, 512).
    structure: weight of the encoder features of a face beside its identity, where an adapter reads both.
    """

    encoder: Tensor | None = None
    identity: Tensor | None = None
    structure: float = 1.0

    def to(self, device: torch.device, dtype: torch.dtype) -> Features:
        encoder, identity = (
            None if t is None else t.to(device, dtype) for t in (self.encoder, self.identity)
        )
        return Features(encoder, identity, self.structure)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(next(t for t in (self.encoder, self.identity) if t is not None))

    def rows(self, start: int, end: int) -> Features:
        """The features of pictures start to end."""
        encoder, identity = (None if t is None else t[start:end] for t in (self.encoder, self.identity))
        return Features(encoder, identity, self.structure)

    @property
    def known_encoder(self) -> Tensor:
        """`encoder`. Raises MismatchError where there is none."""
        return _known(self.encoder, "CLIP vision features", "Connect a CLIP vision model.")

    @property
    def known_identity(self) -> Tensor:
        """`identity`. Raises MismatchError where there is none."""
        return _known(self.identity, "face embeddings", "Find faces first, and encode those.")


def _known(tensor: Tensor | None, what: str, remedy: str) -> Tensor:
    if tensor is None:
        raise MismatchError(f"this adapter reads {what}, and none came. {remedy}")
    return tensor
