"""Bytes on the device while sampling with full-size models: one image, fp16, by the shapes of released files."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from support import layouts

from ...ipadapter_core.attention import SiteResidual
from .cases import CFG
from .counting import SOURCES, size_in_bytes, tensors_in

TOKENS = {"base": 4, "plus": 16, "full": 257}
WIDTHS = {"SD1.5": layouts.SD15, "SDXL": layouts.SDXL}
CONTEXT = {"SD1.5": 768, "SDXL": 2048}
HEADS = {"SD1.5": lambda width: 8, "SDXL": lambda width: width // 64}
# ip-adapter_sd15, -plus_sd15, -full-face_sd15; ip-adapter_sdxl, -plus_sdxl_vit-h. SDXL has no released 'full'
PROJECTIONS: dict[tuple[str, str], Callable[[], layouts.Table]] = {
    ("SD1.5", "base"): lambda: layouts.base(1024, 768),
    ("SD1.5", "plus"): lambda: layouts.plus(1280, 768, 768, 12),
    ("SD1.5", "full"): lambda: layouts.full(1280, 768),
    ("SDXL", "base"): lambda: layouts.base(1280, 2048),
    ("SDXL", "plus"): lambda: layouts.plus(1280, 2048, 1280, 20),
    ("SDXL", "full"): lambda: layouts.full(1280, 2048),
}


def our_bytes(family: str, kind: str, dtype: torch.dtype = torch.float16) -> int:
    """Our own residuals at every site, on the meta device: what they cache in their first call."""
    return sum(_site_bytes(width, HEADS[family](width), TOKENS[kind], dtype) for width in WIDTHS[family])


def _site_bytes(width: int, heads: int, tokens: int, dtype: torch.dtype) -> int:
    keys = torch.empty(2, tokens, width, device="meta")
    residual = SiteResidual(keys, keys, 1, 0.8)
    q = torch.empty(2, 64, width, device="meta", dtype=dtype)
    residual.add_to(q, q, heads, CFG, None)
    return size_in_bytes(tensors_in({k: v for k, v in vars(residual).items() if k not in SOURCES}))


def adapter_bytes(family: str, kind: str, dtype: torch.dtype = torch.float16) -> int:
    """What a peer holds: the whole adapter, as the de-facto pack and diffusers load it, and its tokens or features."""
    table = PROJECTIONS[family, kind]() | layouts.keys_values(WIDTHS[family], CONTEXT[family])
    tokens = 2 * TOKENS[kind] * CONTEXT[family]
    return (sum(prod(shape) for shape in table.values()) + tokens) * dtype.itemsize
