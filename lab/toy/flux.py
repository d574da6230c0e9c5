"""The toy transformer: Flux.1's layout under ComfyUI's names, for training, and for hosts that have no hooks of their own.

It gives patches what ComfyUI of 0.3.64 and later gives them: entries of patches_replace["dit"] around each block, with the
block in `original_block`, and an override of the attention in transformer_options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import FLUX

Options = Mapping[str, Any]
_TIMES = 256  # numbers that a time is written in


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """(rows, heads, N, d) thrice -> (rows, N, heads · d)"""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attend(parts: Tensor, pe: Tensor, options: Options) -> Tensor:
    """parts (3, rows, heads, N, d): q, k and v."""
    q, k = rotated(parts[:2], pe)
    override = options.get("optimized_attention_override")
    if override is None:
        return attention(q, k, parts[2], FLUX.heads)
    return override(attention, q, k, parts[2], FLUX.heads, skip_reshape=True, transformer_options=options)


def rotations(ids: Tensor) -> Tensor:
    """Positions (N, axes) -> (1, 1, N, d/2, 2, 2)"""
    angles = torch.cat(
        [
            ids[:, n, None] / FLUX.theta ** (torch.arange(0, size, 2, device=ids.device) / size)
            for n, size in enumerate(FLUX.axes)
        ],
        dim=-1,
    )
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2))[None, None]


def rotated(x: Tensor, pe: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 1, 2))
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).flatten(-2)


class Embedder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(width, FLUX.width), nn.Linear(FLUX.width, FLUX.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """vec -> as many shifts, scales and gates (rows, 1, width); all 0 at first."""

    def __init__(self, count: int):
        super().__init__()
        self.lin, self.count = _zeros(nn.Linear(FLUX.width, count * FLUX.width)), count

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(self.count, dim=-1)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FLUX.width // FLUX.heads))


class QKNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Norm(), Norm()

    def parts(self, qkv: Tensor) -> Tensor:
        """(rows, N, 3 · width) -> (3, rows, heads, N, d), q and k of length 1 a number and scaled"""
        q, k, v = rearrange(qkv, "b n (t h d) -> t b h n d", t=3, h=FLUX.heads)
        normed = (
            F.rms_norm(x, x.shape[-1:], norm.scale, 1e-6)
            for x, norm in ((q, self.query_norm), (k, self.key_norm))
        )
        return torch.stack((*normed, v))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(FLUX.width, 3 * FLUX.width), nn.Linear(FLUX.width, FLUX.width)
        self.norm = QKNorm()


class DoubleBlock(nn.Module):
    """Two streams, image and text, which meet in the attention."""

    hidden_size, num_heads = FLUX.width, FLUX.heads

    def __init__(self) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(6), Modulation(6)
        self.img_attn, self.txt_attn = SelfAttention(), SelfAttention()
        self.img_mlp, self.txt_mlp = _mlp(), _mlp()

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        streams = (
            (txt, self.txt_mod(vec), self.txt_attn, self.txt_mlp),
            (img, self.img_mod(vec), self.img_attn, self.img_mlp),
        )
        parts = [own.norm.parts(own.qkv(modulated(x, *mod[:2]))) for x, mod, own, _ in streams]
        read = attend(torch.cat(parts, 3), pe, options).split([txt.shape[1], img.shape[1]], dim=1)
        new: list[Tensor] = []
        for out, (x, mod, own, mlp) in zip(read, streams, strict=True):
            x = x + mod[2] * own.proj(out)
            new.append(x + mod[5] * mlp(modulated(x, *mod[3:5])))
        return new[1], new[0]


class SingleBlock(nn.Module):
    """One stream of text and image; attention and MLP beside each other."""

    hidden_size, num_heads = FLUX.width, FLUX.heads

    def __init__(self) -> None:
        super().__init__()
        hidden = int(FLUX.width * FLUX.mlp_ratio)
        self.linear1 = nn.Linear(FLUX.width, 3 * FLUX.width + hidden)
        self.linear2 = nn.Linear(FLUX.width + hidden, FLUX.width)
        self.norm, self.modulation = QKNorm(), Modulation(3)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor, options: Options) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        both = self.linear1(modulated(x, shift, scale))
        qkv, hidden = both.tensor_split([3 * FLUX.width], dim=-1)
        read = attend(self.norm.parts(qkv), pe, options)
        return x + gate * self.linear2(torch.cat((read, F.gelu(hidden, approximate="tanh")), -1))


class FinalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = _zeros(nn.Linear(FLUX.width, FLUX.channels * FLUX.patch**2))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _zeros(nn.Linear(FLUX.width, 2 * FLUX.width)))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        return self.linear(modulated(x, *self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)))


class Flux(nn.Module):
    """Noisy latents (n, 4, h, w), sigmas (n,), words (n, 5, 64) and their mean (n, 64) -> velocity (n, 4, h, w)."""

    # which hosts ask a network for
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.img_in = nn.Linear(FLUX.channels * FLUX.patch**2, FLUX.width)
        self.txt_in = nn.Linear(FLUX.context, FLUX.width)
        self.time_in, self.vector_in = Embedder(_TIMES), Embedder(FLUX.pooled)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(FLUX.double))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(FLUX.single))
        self.final_layer = FinalLayer()

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor,
        transformer_options: Options | None = None,
        **_: Any,
    ) -> Tensor:
        rows, columns = (side // FLUX.patch for side in x.shape[-2:])
        img = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=FLUX.patch, q=FLUX.patch)
        vec = self.time_in(_waves(timestep)) + self.vector_in(y)
        pe = rotations(_positions(context.shape[1], rows, columns))
        out = self._blocks(
            self.img_in(img), self.txt_in(context), {"vec": vec, "pe": pe}, {**(transformer_options or {})}
        )
        out = self.final_layer(out, vec)
        return rearrange(
            out, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=FLUX.patch, q=FLUX.patch
        )

    def _blocks(self, img: Tensor, txt: Tensor, shared: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
        """The image's rows after all blocks, each within its entry of patches_replace."""
        replaced = options.get("patches_replace", {}).get("dit", {})
        shared_args = {**shared, "transformer_options": options}
        for n, block in enumerate(self.double_blocks):
            args = {"img": img, "txt": txt, **shared_args}
            out = _run(_double(block), args, replaced.get(("double_block", n)))
            img, txt = out["img"], out["txt"]
        x = torch.cat((txt, img), 1)
        for n, block in enumerate(self.single_blocks):
            x = _run(_single(block), {"img": x, **shared_args}, replaced.get(("single_block", n)))["img"]
        return x[:, txt.shape[1] :]


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


Args = Mapping[str, Any]


def _double(block: nn.Module) -> Callable[[Args], dict[str, Tensor]]:
    def run(a: Args) -> dict[str, Tensor]:
        img, txt = block(a["img"], a["txt"], a["vec"], a["pe"], a["transformer_options"])
        return {"img": img, "txt": txt}

    return run


def _single(block: nn.Module) -> Callable[[Args], dict[str, Tensor]]:
    return lambda a: {"img": block(a["img"], a["vec"], a["pe"], a["transformer_options"])}


def _run(block: Callable[[Args], dict[str, Tensor]], args: Args, replacement: Any) -> dict[str, Tensor]:
    return block(args) if replacement is None else replacement(args, {"original_block": block})


def _waves(times: Tensor) -> Tensor:
    """Sigmas (n,) -> (n, 256)"""
    half = _TIMES // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=times.device) / half)
    angles = 1000 * times[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), -1)


def _positions(words: int, rows: int, columns: int) -> Tensor:
    """(words + rows · columns, 3): words are all at 0."""
    grid = torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())
    return torch.cat((torch.zeros(words, 3), grid))


def _mlp() -> nn.Sequential:
    hidden = int(FLUX.width * FLUX.mlp_ratio)
    return nn.Sequential(
        nn.Linear(FLUX.width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, FLUX.width)
    )


def _zeros(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
