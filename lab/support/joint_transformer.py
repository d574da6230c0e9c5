"""A small transformer of our own that gives patches what ComfyUI's SD3.5 of 0.3.64 and later gives them.

Beside `transformer`, which is the same for Flux: entries of patches_replace["dit"] around each block, an override of the
joint attention, text in front of the picture. Block 1 attends to the picture alone once more, as SD3.5 Medium's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .tiny_flux import CHANNELS, lively_
from .tiny_sd3 import CONTEXT, HEADS, WIDTH
from .transformer import INSIDE, OVERRIDE, Model, Patcher

DIM = WIDTH // HEADS


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """q, k (rows, N, width), v (rows, N, heads, d) -> (rows, N, width)"""
    q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attend(parts: tuple[Tensor, ...], options: Mapping[str, Any]) -> Tensor:
    override = options.get(OVERRIDE)
    if override is None:
        return attention(*parts, heads=HEADS, transformer_options=options)
    return override(attention, *parts, heads=HEADS, transformer_options=options, **INSIDE)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (DIM,), self.weight, 1e-6)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ln_q, self.ln_k = Norm(), Norm()

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = rearrange(self.qkv(F.layer_norm(x, (WIDTH,))), "b n (t h d) -> t b n h d", t=3, h=HEADS)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v


class Half(nn.Module):
    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.attn = SelfAttention()
        if twice:
            self.attn2 = SelfAttention()


class JointBlock(nn.Module):
    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.context_block, self.x_block = Half(), Half(twice)

    def forward(self, txt: Tensor, img: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        text, image = self.context_block.attn, self.x_block.attn
        parts = zip(text.parts(txt), image.parts(img), strict=True)
        out = attend(tuple(torch.cat(pair, 1) for pair in parts), options)
        length = txt.shape[1]
        added = image.proj(out[:, length:])
        if hasattr(self.x_block, "attn2"):
            again = self.x_block.attn2
            added = added + again.proj(attend(again.parts(img), options))
        return txt + text.proj(out[:, :length]), img + added


class JointTransformer(nn.Module):
    def __init__(self, blocks: int = 2):
        super().__init__()
        self.hidden_size, self.num_heads = WIDTH, HEADS
        self.x_embedder = nn.Linear(4 * CHANNELS, WIDTH)
        self.context_embedder = nn.Linear(CONTEXT, WIDTH)
        self.joint_blocks = nn.ModuleList(JointBlock(twice=n == 1) for n in range(blocks))
        self.out = nn.Linear(WIDTH, 4 * CHANNELS)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        transformer_options: Mapping[str, Any],
        **_: Any,
    ) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, w % 2, 0, h % 2))
        rows = -(-h // 2)
        img = self.x_embedder(rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2))
        img, txt = img + timestep[:, None, None].to(img), self.context_embedder(context)
        options = {**transformer_options}
        replaced = options.get("patches_replace", {}).get("dit", {})
        for n, block in enumerate(self.joint_blocks):
            given = {"img": img, "txt": txt, "vec": timestep, "transformer_options": options}
            replacement = replaced.get(("double_block", n))
            run = _original(block)
            out = run(given) if replacement is None else replacement(given, {"original_block": run})
            txt, img = out["txt"], out["img"]
        tokens = self.out(img)
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=2, q=2)[..., :h, :w]


def _original(block: nn.Module) -> Callable[[Mapping[str, Any]], dict[str, Tensor]]:
    def run(args: Mapping[str, Any]) -> dict[str, Tensor]:
        txt, img = block(args["txt"], args["img"], args["transformer_options"])
        return {"txt": txt, "img": img}

    return run


def stand_in(blocks: int = 2) -> Patcher:
    network = JointTransformer(blocks).requires_grad_(False).eval()
    lively_(dict(network.state_dict()), 5)
    for name, parameter in network.named_parameters():
        if ".ln_" in name:
            parameter.add_(1.0)
    return Patcher(Model(network))
