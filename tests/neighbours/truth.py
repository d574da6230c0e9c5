"""The right value, by no rule of any pack: image attention put in by torch's module hooks at every attn2.

What a row is, is told by its numbers alone. Its picture and its place: where its latent stands in the whole latent. Its
role: which text it attends to. Which row of the call a repeated row is: whose norm2 output it has.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from torch import Tensor

KEY = "truth"


@dataclass(frozen=True)
class Image:
    """tokens, nothing: (rows, t, d) of the image and of 'no image'. mask (m, H, W) in pixels, or None."""

    tensors: dict[str, Tensor]  # 'ip_adapter' of the file
    tokens: Tensor
    nothing: Tensor
    weight: float = 1.0
    mask: Tensor | None = None


@dataclass(frozen=True)
class Place:
    picture: int
    y: int
    x: int


class Truth:
    """Hooks on a model's UNet. shape: (pictures, 4, H, W) of the latent; negatives: texts (1, t, d) of negative prompts."""

    def __init__(self, image: Image, shape: torch.Size, negatives: list[Tensor]):
        self.image, self.shape, self.negatives = image, shape, negatives
        self.wholes: deque[Tensor] = deque(maxlen=4)  # whole latents of late calls, as the UNet reads them
        self.rows: list[Place] = []
        self.latent: tuple[int, int] = (0, 0)
        self.rows_seen = 0

    def watched(self, model: Any) -> Any:
        """A clone that tells which whole latents are sampled."""
        clone = model.clone()
        from comfy.patcher_extension import WrappersMP  # not on hosts of August 2024, which only collect this

        clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self._predict)
        clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, self._batch)
        return clone

    def _predict(self, executor: Any, x: Tensor, timestep: Tensor, *rest: Any) -> Any:
        self._whole(executor.class_obj.inner_model, x, timestep)
        return executor(x, timestep, *rest)

    def _batch(self, executor: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, *rest: Any) -> Any:
        if x.shape == self.shape:
            self._whole(model, x, timestep)
        return executor(model, conds, x, timestep, *rest)

    def _whole(self, model: Any, x: Tensor, timestep: Tensor) -> None:
        self.wholes.appendleft(model.model_sampling.calculate_input(timestep, x).clone())

    @contextmanager
    def hooked(self, unet: Any):
        blocks = [m for m in unet.modules() if isinstance(m, SpatialTransformer)]
        handles = [unet.register_forward_pre_hook(self._locate, with_kwargs=True)]
        numbers = _numbers(unet, self.image.tensors)
        for transformer in blocks:
            spot = _Transformer(self)
            handles.append(transformer.register_forward_pre_hook(spot.enter))
            for block in transformer.transformer_blocks:
                handles += _Site(self, spot, block, numbers[id(block)]).hooks()
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _locate(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["x"]
        self.latent = tuple(x.shape[-2:])
        self.rows = [self._find(row) for row in x]
        self.rows_seen += len(self.rows)

    def _find(self, row: Tensor) -> Place:
        h, w = row.shape[-2:]
        for whole in self.wholes:
            hits = (whole[:, :1] == row[:1, :1, :1]).nonzero()
            for picture, _, y, x in hits.tolist():
                rolled = whole[picture].roll((-y, -x), (-2, -1))
                if torch.equal(rolled[:, :h, :w], row):
                    return Place(picture, y, x)
        raise AssertionError("a row of the call stands nowhere in the latent")

    def is_negative(self, context: Tensor) -> bool:
        return any(torch.equal(context[: n.shape[1]], n[0]) for n in self.negatives)


def _numbers(unet: Any, tensors: dict[str, Tensor]) -> dict[int, int]:
    """Key number in the file of each block, by id: files go down, up, and the middle last."""

    def place(name: str) -> tuple[int, ...]:
        group = next(n for n, start in enumerate(("input", "output", "middle")) if name.startswith(start))
        return (group, *(int(part) for part in re.findall(r"\d+", name)))

    blocks = {name: m for name, m in unet.named_modules() if isinstance(m, BasicTransformerBlock)}
    numbers = sorted({int(key.split(".")[0]) for key in tensors})
    return {id(blocks[name]): number for name, number in zip(sorted(blocks, key=place), numbers, strict=True)}


class _Transformer:
    """(h, w) of the tokens of one SpatialTransformer in this call."""

    def __init__(self, truth: Truth):
        self.truth, self.size = truth, (0, 0)

    def enter(self, _: Any, args: tuple[Any, ...]) -> None:
        self.size = tuple(args[0].shape[-2:])


class _Site:
    """Hooks of one block: rows, q and context on the way in, the image's attention before to_out."""

    def __init__(self, truth: Truth, spot: _Transformer, block: BasicTransformerBlock, number: int):
        self.truth, self.spot, self.block = truth, spot, block
        image = truth.image
        keys, values = (image.tensors[f"{number}.to_{side}_ip.weight"] for side in "kv")
        self.sides = [(F.linear(t, keys), F.linear(t, values)) for t in (image.tokens, image.nothing)]
        self.base: Tensor | None = None
        self.q: Tensor | None = None
        self.places: list[Place] = []
        self.context: Tensor | None = None

    def hooks(self) -> list[Any]:
        attention = self.block.attn2
        return [
            self.block.norm2.register_forward_hook(self._normed),
            attention.to_q.register_forward_hook(self._queried),
            attention.to_k.register_forward_pre_hook(self._keyed),
            attention.to_out.register_forward_pre_hook(self._add),
        ]

    def _normed(self, _: Any, args: Any, out: Tensor) -> None:
        self.base = out.clone()

    def _queried(self, _: Any, args: tuple[Tensor, ...], q: Tensor) -> None:
        self.q, self.context, base = q.clone(), None, self.base
        assert base is not None
        self.places = []
        for row in args[0]:
            found = {self.truth.rows[n] for n in range(len(base)) if torch.equal(base[n], row)}
            assert len(found) == 1, f"a row of q stands {len(found)} times in the call"
            self.places += found

    def _keyed(self, _: Any, args: tuple[Tensor, ...]) -> None:
        if self.context is None:
            self.context = args[0].clone()

    def _add(self, _: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        q, context = self.q, self.context
        assert q is not None
        assert context is not None
        image = [
            self._attend(q[n], self.truth.is_negative(context[n]), self.places[n]) for n in range(len(q))
        ]
        return (args[0] + torch.stack(image), *args[1:])

    def _attend(self, q: Tensor, negative: bool, place: Place) -> Tensor:
        """(tokens, width): what the image adds to one row."""
        keys, values = (side[min(place.picture, len(side) - 1)] for side in self.sides[negative])
        heads = self.block.attn2.heads
        q, keys, values = (t.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for t in (q, keys, values))
        out = F.scaled_dot_product_attention(q, keys, values)[0].transpose(0, 1).flatten(1)
        return out * self.truth.image.weight * self._mask(place)

    def _mask(self, place: Place) -> Tensor | float:
        """(tokens, 1): the mask cut to this row's place, then the mean over each token."""
        mask = self.truth.image.mask
        if mask is None:
            return 1.0
        mask = mask[min(place.picture, len(mask) - 1)]
        factor = mask.shape[-1] // self.truth.shape[-1]
        h, w = (side * factor for side in self.truth.latent)
        cut = mask.roll((-place.y * factor, -place.x * factor), (0, 1))[:h, :w]
        return F.interpolate(cut[None, None], size=self.spot.size, mode="area").reshape(-1, 1)
