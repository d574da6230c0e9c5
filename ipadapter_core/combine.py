"""One image prompt of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MismatchError, SettingError
from .prompt import ImagePrompt


class Combine(str, Enum):
    """How the tokens of several prompts become those of one."""

    CONCAT = "concat"
    ADD = "add"
    SUBTRACT = "subtract"
    AVERAGE = "average"
    NORM_AVERAGE = "norm average"


def combine(prompts: Sequence[ImagePrompt], method: Combine, weights: Sequence[float]) -> ImagePrompt:
    """One prompt of several, of the same adapter. weights: one for each prompt.

    concat keeps all tokens and scales what each prompt adds. The others are arithmetic on the tokens, and need
    equal token counts: add Σwᵢtᵢ; subtract w₁t₁ − Σ wᵢtᵢ; average Σwᵢtᵢ/Σwᵢ; norm average, the average brought
    back to the mean length of its parts. 'No image' stays no image: the uncond tokens are averaged.
    Raises MismatchError where adapters, rows or token counts differ, SettingError for an average of weights of sum 0.
    """
    _require_one_adapter(prompts)
    _require_equal_images(prompts)
    if method is Combine.CONCAT:
        return _concat(prompts, weights)
    for side, counts in (
        ("image", {prompt.cond.shape[1] for prompt in prompts}),
        ("negative", {prompt.uncond.shape[1] for prompt in prompts}),
    ):
        if len(counts) != 1:
            raise MismatchError(
                f"'{method.value}' needs prompts of the same number of {side} tokens, got {sorted(counts)} (a prompt of "
                "several images has more). Use 'concat', or encode the same number of images for each."
            )
    rows = _broadcast_rows(prompts)
    strength = [
        prompt.value_scale[..., None] * weight for prompt, weight in zip(prompts, weights, strict=True)
    ]
    cond = _BLENDS[method]([prompt.cond for prompt in prompts], strength).expand(rows, -1, -1)
    uncond = _expanded_uncond(prompts)
    return replace(
        prompts[0],
        cond=cond,
        uncond=torch.stack(uncond).mean(0),
        value_scale=torch.ones(cond.shape[:2]),
        note={"combined": f"{method.value} of {len(prompts)}"},
    )


def _concat(prompts: Sequence[ImagePrompt], weights: Sequence[float]) -> ImagePrompt:
    rows = _broadcast_rows(prompts)
    return replace(
        prompts[0],
        cond=torch.cat([p.cond.expand(rows, -1, -1) for p in prompts], dim=1),
        uncond=torch.cat(_expanded_uncond(prompts), dim=1),
        value_scale=torch.cat(
            [p.value_scale.expand(rows, -1) * w for p, w in zip(prompts, weights, strict=True)], dim=1
        ),
        note={"combined": f"concat of {len(prompts)}"},
    )


def _expanded_uncond(prompts: Sequence[ImagePrompt]) -> list[Tensor]:
    rows = max(prompt.uncond.shape[0] for prompt in prompts)
    return [prompt.uncond.expand(rows, -1, -1) for prompt in prompts]


def _broadcast_rows(prompts: Sequence[ImagePrompt]) -> int:
    rows = {prompt.rows for prompt in prompts} - {1}
    if len(rows) > 1:
        raise MismatchError(
            f"prompts for batches of {sorted(rows)} pictures do not combine; encode equal numbers, or one image."
        )
    return rows.pop() if rows else 1


def _require_one_adapter(prompts: Sequence[ImagePrompt]) -> None:
    names = {prompt.adapter.digest: prompt.adapter.name for prompt in prompts}
    if len(names) > 1:
        raise MismatchError(
            f"prompts of different adapters ({', '.join(sorted(names.values()))}) do not combine: their tokens mean "
            "different things. Use one ImagePromptApply for each instead."
        )


def _require_equal_images(prompts: Sequence[ImagePrompt]) -> None:
    """Where an image is told from the next by its number of tokens."""
    counts = sorted({prompt.tokens_per_image for prompt in prompts if prompt.tokens_per_image is not None})
    if len(counts) > 1:
        raise MismatchError(
            f"prompts with {' and '.join(map(str, counts))} encoder tokens for each image do not combine: they come from "
            "different encoders. Encode all images with one encoder."
        )


Blend = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def _add(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return sum((t * w for t, w in zip(tokens, weights, strict=True)), torch.zeros(()))


def _subtract(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return _add(tokens, [weights[0], *(-w for w in weights[1:])])


def _average(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    total = sum(weights, torch.zeros(()))
    if bool((total.abs() < 1e-6).any()):
        raise SettingError("the weights add up to 0, which has no average; change one of them.")
    return _add(tokens, weights) / total


def _norm_average(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    length = _average([t.norm(dim=-1, keepdim=True) for t in tokens], weights)
    return F.normalize(_average(tokens, weights), dim=-1) * length


_BLENDS: dict[Combine, Blend] = {
    Combine.ADD: _add,
    Combine.SUBTRACT: _subtract,
    Combine.AVERAGE: _average,
    Combine.NORM_AVERAGE: _norm_average,
}
