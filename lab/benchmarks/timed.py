"""The timed half: one attention site at its true shape, with the image prompt minus without.

Inside the timed region: the text attention over precomputed q, k, v, and all that a side does for the image prompt there in
every step. Ours: the residual with cached K'/V' (its first call, which caches them, is warm-up). The de-facto
pack and diffusers: their own K'/V' projections of the image tokens too, since they run them in every step.
Outside for all: to_q, to_k, to_v of the text, and to_out. Ours and the de-facto pack's patches are called as the host
calls them, (q, k, v, extra_options), and their base is the host's own attention. diffusers' processors are called
with an Attention whose projections return the same q, k, v; their base is AttnProcessor2_0 called alike.

All sides have the same q, k, v, tokens, W'k and W'v, and their outputs are compared before the clock starts. Calls are
interleaved: one of each side a round, in an order that is rotated by one every round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from support import peer
from torch import Tensor, nn

from ...host.attach.base import Residual
from ...host.attach.calls import CALL, StepClock, call_of_options
from ...host.attach.unet import SitePatch, text_attention
from ...ipadapter_core.attention import SiteResidual
from .cases import CFG
from .clock import Call, interleaved
from .full_size import CONTEXT, HEADS, TOKENS
from .sides import present

TEXT_TOKENS = 77
WEIGHT = 0.8
# (h, w) and width of the queries: SD1.5 at 512², SDXL at 1024²
SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "SD1.5": ((64, 320), (32, 640), (16, 1280), (8, 1280)),
    "SDXL": ((64, 640), (32, 1280)),
}


@dataclass(frozen=True)
class Timing:
    """Medians in milliseconds at one site shape. added: by side, beyond that side's own base, which is in `base`."""

    family: str
    kind: str
    queries: int
    width: int
    base: dict[str, float]
    added: dict[str, float]

    @property
    def shape(self) -> str:
        return f"{self.queries}x{self.width}"


class Site:
    """Random tensors of one site: cond and uncond of one picture, one image prompt."""

    def __init__(self, family: str, kind: str, side: int, width: int, device: torch.device):
        self.side, self.width, self.heads = side, width, HEADS[family](width)
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        generator = torch.Generator().manual_seed(1)

        def values(*shape: int, gain: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator) * gain).to(device=device, dtype=dtype)

        self.q = values(2, side * side, width)
        self.k, self.v = values(2, TEXT_TOKENS, width), values(2, TEXT_TOKENS, width)
        self.cond, self.uncond = (values(1, TOKENS[kind], CONTEXT[family]) for _ in CFG)
        self.to_k, self.to_v = (values(width, CONTEXT[family], gain=CONTEXT[family] ** -0.5) for _ in "kv")

    @property
    def options(self) -> dict[str, Any]:
        """The host's extra_options, as far as patches read them."""
        return {
            "n_heads": self.heads,
            "dim_head": self.width // self.heads,
            "attn_precision": None,
            "cond_or_uncond": list(CFG),
            "sigmas": torch.ones(2, device=self.q.device),
            "original_shape": [2, 4, 8 * self.side, 8 * self.side],
            "activations_shape": [2, self.width, self.side, self.side],
            "block": ("input", 4),
            "block_index": 0,
            "transformer_index": 0,
        }


def _base(site: Site) -> Call:
    options = site.options
    return lambda: text_attention(site.q, site.k, site.v, options)


def _ours(site: Site) -> Call:
    tokens = torch.cat((site.cond, site.uncond)).float()
    keys, values = (tokens @ matrix.float().T for matrix in (site.to_k, site.to_v))
    residual = Residual(SiteResidual(keys, values, 1, WEIGHT), None)
    patch, options = SitePatch(None, (residual,)), site.options
    options[CALL] = call_of_options(options, site.q.shape[0], StepClock())
    return lambda: patch(site.q, site.k, site.v, options)


def _de_facto(site: Site) -> Call:
    pack = peer.pack()
    layers = pack.To_KV({"1.to_k_ip.weight": site.to_k, "1.to_v_ip.weight": site.to_v})
    loaded = SimpleNamespace(ip_layers=layers)
    loaded.get_multigpu_clone = lambda device: loaded
    patch = pack.Attn2Replace(
        pack.ipadapter_attention,
        module_key="1",
        ipadapter=loaded,
        weight=WEIGHT,
        cond=site.cond,
        uncond=site.uncond,
        sigma_start=999999999.9,
        sigma_end=0.0,
    )
    options = site.options
    return lambda: patch(site.q, site.k, site.v, options)


def _attention(site: Site) -> Any:
    """As diffusers' processors read their Attention; its projections return what is precomputed."""
    absent = dict.fromkeys(("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k"))
    return SimpleNamespace(
        **absent,
        residual_connection=False,
        heads=site.heads,
        rescale_output_factor=1.0,
        to_q=lambda _: site.q,
        to_k=lambda _: site.k,
        to_v=lambda _: site.v,
        to_out=[nn.Identity(), nn.Identity()],
    )


def _diffusers_base(site: Site) -> Call:
    attention, processor = _attention(site), AttnProcessor2_0()
    return lambda: processor(attention, site.q, site.k)


def _diffusers(site: Site) -> Call:
    tokens = site.cond.shape[1]
    processor: Any = IPAdapterAttnProcessor2_0(site.width, site.cond.shape[2], (tokens,), WEIGHT)
    processor.to_k_ip[0].weight.data, processor.to_v_ip[0].weight.data = site.to_k, site.to_v
    # (B, images, t, d): the uncond row first, as the host batches them
    images = torch.stack((site.uncond, site.cond))
    attention = _attention(site)
    return lambda: processor(attention, site.q, (site.k, [images]))


# side -> (its base, with the image prompt)
CALLS: dict[str, tuple[Callable[[Site], Call], Callable[[Site], Call]]] = {
    "ours": (_base, _ours),
    "de-facto pack": (_base, _de_facto),
    "diffusers": (_diffusers_base, _diffusers),
}


def time_site(site: Site, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of every side's base, and what its image prompt adds."""
    sides = [name for name in CALLS if name in present()]
    makers = dict.fromkeys(maker for name in sides for maker in CALLS[name])
    calls = {maker: maker(site) for maker in makers}
    with torch.inference_mode():
        _compare([calls[CALLS[name][1]]() for name in sides])
        times = interleaved(list(calls.values()), rounds, site.q.device)
    medians = {maker: median(spent) for maker, spent in zip(calls, times, strict=True)}
    base = {name: medians[CALLS[name][0]] for name in sides}
    return base, {name: medians[CALLS[name][1]] - base[name] for name in sides}


def _compare(outputs: Sequence[Tensor]) -> None:
    """Times are comparable only where the outputs are equal."""
    for out in outputs[1:]:
        torch.testing.assert_close(
            out, outputs[0], atol=1e-5 if out.dtype == torch.float32 else 1e-2, rtol=1e-2
        )


def time_all(
    families: Sequence[str], kinds: Sequence[str], rounds: int, device: torch.device
) -> Iterator[Timing]:
    for family in families:
        for kind in kinds:
            for side, width in SHAPES[family]:
                base, added = time_site(Site(family, kind, side, width, device), rounds)
                yield Timing(family, kind, side * side, width, base, added)
