"""ImagePrompt: the tokens of one image prompt for (cond, uncond); making, combining, saving."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .adapter import KeysValues, TokenSource
from .checkpoint import read_outline
from .errors import CheckpointError, MismatchError, shown
from .files.writing import replacing
from .values import LARGEST_FEATURE, require_finite

FORMAT = "image-prompt/1"
_PARTS = ("cond", "uncond", "gains")  # tensors of a saved prompt
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Arrange(str, Enum):
    """How the pictures of one batch become a prompt."""

    TOGETHER = "all together"  # every generated picture attends to all of them
    ONE_EACH = "one per picture"  # picture i of the latent batch attends to image i


class Combine(str, Enum):
    CONCAT = "concat"
    ADD = "add"
    SUBTRACT = "subtract"
    AVERAGE = "average"
    NORM_AVERAGE = "norm average"


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """Immutable. cond (rows, t, d) and uncond (1 or rows, t', d) image tokens, fp32 on the CPU.

    rows is 1, or one for each picture of the latent batch. gains (rows, t): weight of each cond token's V',
    from the per-image weights. span: tokens of one image, all of a row without it. note: where the tokens came from,
    for people.
    """

    adapter: TokenSource
    cond: Tensor
    uncond: Tensor
    gains: Tensor
    note: dict[str, str] = field(default_factory=dict[str, str])
    span: int | None = None
    _through: dict[float, tuple[weakref.ref[Tensor], ImagePrompt]] = field(default_factory=dict, repr=False)  # pyright: ignore[reportUnknownVariableType]

    @property
    def rows(self) -> int:
        return self.cond.shape[0]

    @cached_property
    def keys_values(self) -> KeysValues:
        """K'/V' per site in file order, (rows + uncond rows, t, width): computed once, whatever weight or mask.

        Where cond and uncond differ in length: if one is a multiple, the shorter is repeated, since a softmax over keys
        that are all repeated equally often is the same softmax. Else it is filled up with keys that `lengths` hides.
        """
        longest = max(self.cond.shape[1], self.uncond.shape[1])
        tokens = torch.cat([_to_length(t, longest) for t in (self.cond, self.uncond)])
        gains = _to_length(self.gains[..., None], longest)
        gains = torch.cat((gains, torch.ones(self.uncond.shape[0], longest, 1)))
        plain = bool((self.gains == 1).all())
        return tuple((k, v if plain else v * gains) for k, v in self.adapter.keys_values(tokens))

    @property
    def lengths(self) -> tuple[int, int] | None:
        """(cond, uncond) tokens of a row where keys_values has more than one of them has; else None."""
        counts = self.cond.shape[1], self.uncond.shape[1]
        return counts if max(counts) % min(counts) else None

    @property
    def swapped(self) -> ImagePrompt:
        """The image on the negative side, and tokens of zero, which add nothing, on the positive one."""
        return replace(
            self, cond=torch.zeros_like(self.cond), uncond=self.cond, gains=torch.ones_like(self.gains)
        )

    def through(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> ImagePrompt:
        """The prompt with its tokens through a UNet's own projection of its context (Kolors' encoder_hid_proj).

        weight (context_width, token_width), bias (context_width). Made once for each model; scale: of what comes out.
        """
        last = self._through.get(scale)
        if last is None or last[0]() is not weight:
            linear = partial(F.linear, weight=_plain(weight), bias=None if bias is None else _plain(bias))
            cond, uncond = (linear(tokens) * scale for tokens in (self.cond, self.uncond))
            last = weakref.ref(weight), replace(self, cond=cond, uncond=uncond, _through={})
            self._through[scale] = last
        return last[1]


def _to_length(tokens: Tensor, length: int) -> Tensor:
    """(n, t, d) -> (n, length, d): repeated whole, or followed by zeros where that does not come out even."""
    times, rest = divmod(length, tokens.shape[1])
    if rest:
        return F.pad(tokens, (0, 0, 0, length - tokens.shape[1]))
    return repeat(tokens, "n t d -> n (r t) d", r=times)


def _plain(tensor: Tensor) -> Tensor:
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
    """
    images, length = cond.shape[0], cond.shape[1]
    gains = repeat(_weights(image_weights, images), "n -> n t", t=length)
    if arrange is Arrange.TOGETHER:
        cond, uncond = (rearrange(t, "n t d -> 1 (n t) d") for t in (cond, uncond))
        gains = rearrange(gains, "n t -> 1 (n t)")
    elif uncond.shape[0] not in (1, images):
        raise MismatchError(
            f"{images} images, one per picture, came with {uncond.shape[0]} negative images; "
            f"connect one negative image, or {images}."
        )
    return ImagePrompt(adapter, _plain(cond), _plain(uncond), gains, note or {})


def _weights(weights: Sequence[float], images: int) -> Tensor:
    if len(weights) not in (0, 1, images):
        raise MismatchError(
            f"{len(weights)} image weights for {images} images; give one for all, one for each, or none."
        )
    return torch.tensor([*weights] or [1.0], dtype=torch.float32).expand(images)


def combine(prompts: Sequence[ImagePrompt], method: Combine, weights: Sequence[float]) -> ImagePrompt:
    """One prompt of several, of the same adapter. weights: one for each prompt.

    concat keeps all tokens and scales what each prompt adds. The others are arithmetic on the tokens, and need
    equal token counts: add Σwᵢtᵢ; subtract w₁t₁ − Σ wᵢtᵢ; average Σwᵢtᵢ/Σwᵢ; norm average, the average brought
    back to the mean length of its parts. 'No image' stays no image: the uncond tokens are averaged.
    """
    _same_adapter(prompts)
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
    strength = [prompt.gains[..., None] * weight for prompt, weight in zip(prompts, weights, strict=True)]
    cond = _BLENDS[method]([prompt.cond for prompt in prompts], strength).expand(rows, -1, -1)
    uncond = _expanded_uncond(prompts)
    return replace(
        prompts[0],
        cond=cond,
        uncond=torch.stack(uncond).mean(0),
        gains=torch.ones(cond.shape[:2]),
        note={"combined": f"{method.value} of {len(prompts)}"},
    )


def _concat(prompts: Sequence[ImagePrompt], weights: Sequence[float]) -> ImagePrompt:
    rows = _broadcast_rows(prompts)
    return replace(
        prompts[0],
        cond=torch.cat([p.cond.expand(rows, -1, -1) for p in prompts], dim=1),
        uncond=torch.cat(_expanded_uncond(prompts), dim=1),
        gains=torch.cat([p.gains.expand(rows, -1) * w for p, w in zip(prompts, weights, strict=True)], dim=1),
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


def _same_adapter(prompts: Sequence[ImagePrompt]) -> None:
    names = {prompt.adapter.digest: prompt.adapter.name for prompt in prompts}
    if len(names) > 1:
        raise MismatchError(
            f"prompts of different adapters ({', '.join(sorted(names.values()))}) do not combine: their tokens mean "
            "different things. Use one ImagePromptApply for each instead."
        )


Blend = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def _add(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return sum((t * w for t, w in zip(tokens, weights, strict=True)), torch.zeros(()))


def _subtract(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return _add(tokens, [weights[0], *(-w for w in weights[1:])])


def _average(tokens: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    total = sum(weights, torch.zeros(()))
    if bool((total.abs() < 1e-6).any()):
        raise MismatchError("the weights add up to 0, which has no average; change one of them.")
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


def save_prompt(prompt: ImagePrompt, path: str | Path) -> None:
    """Write tokens and their provenance as .safetensors; the adapter itself is not stored, only named.

    Raises WriteError; the file is there whole or not at all.
    """
    spec = prompt.adapter.spec
    metadata = {
        "format": FORMAT,
        "adapter": shown(prompt.adapter.name),
        "adapter_digest": prompt.adapter.digest,
        "variant": spec.variant.value,
        "family": spec.family,
        "encoder": spec.encoder,
        "note": json.dumps(prompt.note),
    }
    tensors = {"cond": prompt.cond, "uncond": prompt.uncond, "gains": prompt.gains}
    with replacing(path, SafetensorError) as part:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, str(part), metadata)


def is_saved_prompt(path: str | Path) -> bool:
    """Whether the file's header says so; tensors are not read."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):  # ValueError: of a name that is no text
        return False


def load_prompt(adapter: TokenSource, path: str | Path) -> ImagePrompt:
    """Read a saved prompt for the adapter it was made with. Raises CheckpointError or MismatchError."""
    name = shown(Path(path).name)
    try:
        outline = read_outline(path)
        metadata = outline.metadata
        tensors = outline.read(key for key in _PARTS if key in outline.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{name} is not a saved image prompt that can be read. {error}") from error
    if metadata.get("format") != FORMAT or tensors.keys() != set(_PARTS):
        raise CheckpointError(
            f"{name} is not a saved image prompt (format '{metadata.get('format')}', expected '{FORMAT}'). "
            "Pick a file that ImagePromptSave wrote."
        )
    if metadata.get("adapter_digest") != adapter.digest:
        raise MismatchError(
            f"{name} was made with {metadata.get('adapter')} ({metadata.get('variant')}, {metadata.get('family')}), "
            f"but {adapter.name} is connected. Its tokens mean something else there: load {metadata.get('adapter')}."
        )
    _check_saved(name, tensors, adapter.spec.token_width)
    cond, uncond, gains = (_plain(tensors[key]) for key in _PARTS)
    return ImagePrompt(adapter, cond, uncond, gains, _note(metadata.get("note", "{}")))


def _check_saved(name: str, tensors: dict[str, Tensor], width: int) -> None:
    """Raise CheckpointError unless these are whole tokens of this width, with a gain for each."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    cond, uncond, gains = (tensors[key] for key in _PARTS)
    fits = (
        {cond.ndim, uncond.ndim} == {3}
        and {cond.shape[-1], uncond.shape[-1]} == {width}
        and uncond.shape[0] in (1, cond.shape[0])
        and gains.shape == cond.shape[:2]
        and all(tensor.numel() for tensor in (cond, uncond, gains))
    )
    if not fits:
        raise CheckpointError(
            f"{name} holds tokens of shapes {shapes['cond']}, {shapes['uncond']} and gains {shapes['gains']}; expected "
            f"(rows, t, {width}), (1 or rows, t', {width}) and (rows, t), none of them 0. The file was changed; save the "
            "prompt again."
        )
    for key in _PARTS:
        if tensors[key].dtype not in _FLOATS:
            raise CheckpointError(
                f"{name} holds '{key}' as {tensors[key].dtype}; expected fp32, fp16 or bf16. The file was changed; save the "
                "prompt again."
            )
        try:
            require_finite(tensors[key], f"{name}: '{key}'", LARGEST_FEATURE)
        except MismatchError as error:
            raise CheckpointError(f"{error} Save the prompt again.") from error


def _note(written: str) -> dict[str, str]:
    """For people only: a damaged one is left out, the tokens are whole."""
    try:
        note = json.loads(written)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in note.items()} if isinstance(note, dict) else {}
