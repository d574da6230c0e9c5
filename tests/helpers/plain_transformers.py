"""The stand-in transformers with an adapter in them, written from the formulas, for training beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from image_prompt.ipadapter_core.adapter import KeysValues, TimedKeysValues
from support import joint_transformer, open_transformer, transformer
from support.tiny_flux import DIM, HEADS
from torch import Tensor


def image_part(q: Tensor, pair: tuple[Tensor, Tensor], normed: bool) -> Tensor:
    """softmax(Q K'ᵀ / √d) V' of q (n, heads, N, d): (n, N, width)."""
    keys, values = (rearrange(t, "n t (h d) -> n h t d", h=HEADS) for t in pair)
    if normed:
        keys = keys / (keys.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    weights = (q @ keys.transpose(-1, -2) / DIM**0.5).softmax(-1)
    return rearrange(weights @ values, "n h l d -> n l (h d)")


def flux(
    network: transformer.Transformer, x: Tensor, time: Tensor, context: Tensor, pairs: KeysValues
) -> Tensor:
    """XLabs' formula with as many pairs as double blocks, InstantX's with as many as blocks."""
    behind = len(pairs) == len(network.double_blocks)
    tokens, (h, w) = network._tokens(x)
    img, txt = network.img_in(tokens) + time[:, None, None], network.txt_in(context)
    pe, text = transformer.rotations(txt.shape[1] + tokens.shape[1]), txt.shape[1]
    for block, pair in zip(network.double_blocks, pairs, strict=False):
        own = block.parts(img)
        out = transformer.attend(torch.cat((block.of_text.parts(txt), own), 3), pe, {})
        added = image_part(own[0], pair, not behind)
        image = out[:, text:] if behind else out[:, text:] + added
        img, txt = img + block.proj(image), txt + block.of_text.proj(out[:, :text])
        img = img + added if behind else img
    both = torch.cat((txt, img), 1)
    for number, block in enumerate(network.single_blocks):
        parts = block.parts(both)
        out = transformer.attend(parts, pe, {})
        if not behind:
            out = out + image_part(parts[0], pairs[len(network.double_blocks) + number], True)
        both = both + block.proj(out)
    made = network.out(both[:, text:])
    return rearrange(made, "b (h w) (c p q) -> b c (h p) (w q)", h=h, w=w, p=2, q=2)


def generic(
    network: open_transformer.Qwen | open_transformer.OneStream,
    x: Tensor,
    time: Tensor,
    context: Tensor,
    pairs: KeysValues,
) -> Tensor:
    """This pack's own layout: one pair a block, on the image's rows of its attention, before the block's projection."""
    tokens, (h, w) = network._tokens(x)
    img, txt = network.img_in(tokens) + time[:, None, None], network.txt_in(context)
    text = txt.shape[1]
    pe = transformer.rotations(text + tokens.shape[1])

    def attended(parts: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        q = transformer.rotated(parts[0], pe)[:, :, text:]
        out = transformer.attend(parts, pe, {})
        return torch.cat((out[:, :text], out[:, text:] + image_part(q, pair, True)), 1)

    for layer in getattr(network, "noise_refiner", ()):
        img = img + layer.proj(transformer.attend(layer.parts(img), pe[:, :, text:], {}))
    for block, pair in zip(network.double_blocks, pairs, strict=False):
        out = attended(torch.cat((block.of_text.parts(txt), block.parts(img)), 3), pair)
        img, txt = img + block.proj(out[:, text:]), txt + block.of_text.proj(out[:, :text])
    both = torch.cat((txt, img), 1)
    for layer, pair in zip(getattr(network, "layers", ()), pairs, strict=False):
        both = both + layer.proj(attended(layer.parts(both), pair))
    made = network.out(both[:, text:])
    return rearrange(made, "b (h w) (c p q) -> b c (h p) (w q)", h=h, w=w, p=2, q=2)


def joint(
    network: joint_transformer.JointTransformer,
    x: Tensor,
    time: Tensor,
    context: Tensor,
    pairs: TimedKeysValues,
) -> Tensor:
    """InstantX's: Attn(Q', [K_own | K'], [V_own | V']), Q' and K_own under the adapter's norms."""
    heads, d = joint_transformer.HEADS, joint_transformer.DIM
    tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
    img, txt = network.x_embedder(tokens) + time[:, None, None], network.context_embedder(context)
    text = txt.shape[1]
    for n, block in enumerate(network.joint_blocks):
        attn = block.x_block.attn
        raw = rearrange(attn.qkv(F.layer_norm(img, img.shape[-1:])), "b n (t h d) -> t b h n d", t=3, h=heads)
        q, k = (
            F.rms_norm(part, (d,), norms[n], 1e-6)
            for part, norms in zip(raw[:2], (pairs.query_norms, pairs.key_norms), strict=True)
        )
        keys, values = (rearrange(t[n], "b t (h d) -> b h t d", h=heads) for t in (pairs.keys, pairs.values))
        keys, values = torch.cat((k, keys), 2), torch.cat((raw[2], values), 2)
        added = rearrange((q @ keys.transpose(-1, -2) / d**0.5).softmax(-1) @ values, "b h n d -> b n (h d)")
        both = zip(block.context_block.attn.parts(txt), attn.parts(img), strict=True)
        out = joint_transformer.attend(tuple(torch.cat(pair, 1) for pair in both), {})
        moved = attn.proj(out[:, text:] + added)
        if hasattr(block.x_block, "attn2"):
            again = block.x_block.attn2
            moved = moved + again.proj(joint_transformer.attend(again.parts(img), {}))
        img, txt = img + moved, txt + block.context_block.attn.proj(out[:, :text])
    return rearrange(network.out(img), "b (h w) (c p q) -> b c (h p) (w q)", h=x.shape[-2] // 2, p=2, q=2)
