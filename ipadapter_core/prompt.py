"""ImagePrompt: the tokens of one image prompt for (cond, uncond)."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from .adapter import KeysValues, TokenSource
from .errors import MismatchError
from .joint import TimedPairs


class Arrange(str, Enum):
    """How the pictures of one batch become a prompt."""

    TOGETHER = "all together"  # every generated picture attends to all of them
    ONE_EACH = "one per picture"  # picture i of the latent batch attends to image i


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """Tokens of one image prompt; immutable.

    cond (rows, t, d) and uncond (1 or rows, t', d): image tokens, fp32 on the CPU. rows is 1, or one for each picture of
    the latent batch. value_scale (rows, t): factor of each cond token's V', from the weights of its images.
    tokens_per_image: all tokens of a row belong to one image without it. note: where the tokens came from, for people.
    Of an adapter whose tokens follow from the timestep they are the encoder's features, from which those are made.
    """

    adapter: TokenSource
    cond: Tensor
    uncond: Tensor
    value_scale: Tensor
    note: dict[str, str] = field(default_factory=dict[str, str])
    tokens_per_image: int | None = None
    _projected: dict[float, tuple[weakref.ref[Tensor], ImagePrompt]] = field(
        default_factory=dict[float, "tuple[weakref.ref[Tensor], ImagePrompt]"], init=False, repr=False
    )

    @property
    def rows(self) -> int:
        """Number of cond rows."""
        return self.cond.shape[0]

    @cached_property
    def keys_values(self) -> KeysValues:
        """K'/V' per site in file order, (rows + uncond rows, t, width): computed once, whatever weight or mask.

        Where cond and uncond differ in length: if one is a multiple, the shorter is repeated, since a softmax over keys
        that are all repeated equally often is the same softmax. Else it is filled up with keys that `lengths` hides.
        """
        longest = max(self.cond.shape[1], self.uncond.shape[1])
        tokens = torch.cat([_to_length(t, longest) for t in (self.cond, self.uncond)])
        pairs = self.adapter.keys_values(tokens)
        if bool((self.value_scale == 1).all()):
            return pairs
        scale = _to_length(self.value_scale[..., None], longest)
        scale = torch.cat((scale, torch.ones(self.uncond.shape[0], longest, 1)))
        return tuple((keys, values * scale) for keys, values in pairs)

    @cached_property
    def timed_pairs(self) -> TimedPairs:
        """Where K'/V' follow from the timestep: what computes them, once a step for all that this prompt is applied to."""
        size = self.tokens_per_image or self.cond.shape[1]
        return TimedPairs(self.adapter, self.cond, self.uncond, self.value_scale[:, ::size])

    @property
    def lengths(self) -> tuple[int, int] | None:
        """(cond, uncond) tokens of a row, where keys_values fills up one of them with keys to hide; else None."""
        counts = self.cond.shape[1], self.uncond.shape[1]
        return counts if max(counts) % min(counts) else None

    @property
    def negated(self) -> ImagePrompt:
        """The image on the negative side, and on the positive one tokens whose V' counts 0 times, which add nothing."""
        nothing, none = torch.zeros_like(self.cond), torch.zeros_like(self.value_scale)
        return replace(self, cond=nothing, uncond=self.cond, value_scale=none)

    def project_context(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> ImagePrompt:
        """The prompt with its tokens through a UNet's own projection of its context (Kolors' encoder_hid_proj).

        weight (context_width, token_width), bias (context_width). scale: of what comes out. Made once for each model.
        """
        last = self._projected.get(scale)
        if last is None or last[0]() is not weight:
            linear = partial(F.linear, weight=_on_cpu(weight), bias=None if bias is None else _on_cpu(bias))
            cond, uncond = (linear(tokens) * scale for tokens in (self.cond, self.uncond))
            last = weakref.ref(weight), replace(self, cond=cond, uncond=uncond)
            self._projected[scale] = last
        return last[1]


def _to_length(tokens: Tensor, length: int) -> Tensor:
    """(n, t, d) -> (n, length, d): repeated whole, or followed by zeros where that does not come out even."""
    times, rest = divmod(length, tokens.shape[1])
    if rest:
        return F.pad(tokens, (0, 0, 0, length - tokens.shape[1]))
    return repeat(tokens, "n t d -> n (r t) d", r=times)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32)


def make_prompt(
    adapter: TokenSource,
    cond: Tensor,
    uncond: Tensor,
    arrange: Arrange = Arrange.TOGETHER,
    image_weights: Sequence[float] = (),
    note: dict[str, str] | None = None,
) -> ImagePrompt:
    """A prompt of n images: cond tokens (n, t, d), uncond (m, t, d) of the negative images or of 'no image' (m = 1).

    image_weights: none, one for all, or one for each image; each scales what its image adds.
    Raises MismatchError where their number, or that of the negative images, does not fit.
    """
    images, length = cond.shape[0], cond.shape[1]
    value_scale = repeat(_weights(image_weights, images), "n -> n t", t=length)
    size = length if adapter.spec.entry.timed else None
    if arrange is Arrange.TOGETHER:
        cond, uncond = (rearrange(t, "n t d -> 1 (n t) d") for t in (cond, uncond))
        value_scale = rearrange(value_scale, "n t -> 1 (n t)")
    elif uncond.shape[0] not in (1, images):
        raise MismatchError(
            f"{images} images, one per picture, came with {uncond.shape[0]} negative images; "
            f"connect one negative image, or {images}."
        )
    return ImagePrompt(adapter, _on_cpu(cond), _on_cpu(uncond), value_scale, note or {}, size)


def _weights(weights: Sequence[float], images: int) -> Tensor:
    if len(weights) not in (0, 1, images):
        raise MismatchError(
            f"{len(weights)} image weights for {images} images; give one for all, one for each, or none."
        )
    return torch.tensor([*weights] or [1.0], dtype=torch.float32).expand(images)
