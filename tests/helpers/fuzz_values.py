"""Values for every kind of input: those a graph means, and odd ones. The same seed gives the same values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from image_prompt import host
from image_prompt.host.attach.watch import Applied, Recording, Watch
from image_prompt.ipadapter_core.heatmap import HeatSums, Place
from image_prompt.ipadapter_core.masking import Crop
from image_prompt.ipadapter_core.prompt import ImagePrompt
from support import tiny
from support.prompts import make_adapter
from torch import Tensor

from .faces import given_faces

NAN, INF = math.nan, math.inf
KINDS = ("base", "plus", "full", "faceid", "faceid plus v2")
Draw = Callable[[random.Random], Any]


def generator(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.randrange(2**31))


@lru_cache
def model() -> Any:
    return tiny.host_model(tiny.SD15)


@lru_cache
def encoder() -> Any:
    return tiny.clip_vision()


@lru_cache
def adapter(kind: str, seed: int = 7) -> host.HostAdapter:
    return make_adapter(kind, tiny.SD15, seed)


class GivenFaceModel:
    """Stands in for insightface: one face in every picture, at the same place."""

    det_model = SimpleNamespace(input_size=(640, 640))

    def get(self, picture: Any) -> list[Any]:
        identity = np.random.default_rng(int(picture.sum()) % 1000).normal(size=512).astype(np.float32)
        points = np.array([[8, 10], [20, 10], [14, 16], [9, 22], [19, 22]], np.float32)
        normed = identity / np.linalg.norm(identity)
        return [SimpleNamespace(embedding=identity, normed_embedding=normed, kps=points)]


def picture(rng: random.Random) -> Tensor:
    sides = rng.choice([(32, 32), (24, 40), (40, 24), (1, 20), (20, 1), (1, 1), (7, 64), (33, 17)])
    channels = rng.choice([3, 3, 3, 4, 1])
    made = torch.rand(rng.choice([1, 1, 2, 3]), *sides, channels, generator=generator(rng))
    return rng.choice([made, made, made.round(), torch.zeros_like(made), made * 1.2 - 0.1])


def mask(rng: random.Random) -> Tensor:
    shape = rng.choice(
        [(1, 16, 16), (24, 40), (2, 8, 8), (3, 1, 9, 9), (1, 1, 1, 5, 6), (1, 1, 1), (3, 64, 2)]
    )
    return rng.choice([torch.rand(shape, generator=generator(rng)), torch.ones(shape), torch.zeros(shape)])


def embeds(rng: random.Random) -> Tensor:
    n = rng.choice([1, 2, 3])
    shape = rng.choice([(n, 48), (n, 17, 64), (2, n, 17, 64), (2, n, 48), (n, 5, 64)])
    return torch.randn(shape, generator=generator(rng))


def encoder_output(rng: random.Random) -> dict[str, Tensor]:
    made = {"penultimate_hidden_states": (1, 17, 64), "image_embeds": (1, 48)}
    return {name: torch.randn(shape, generator=generator(rng)) for name, shape in made.items()}


def image_prompt(rng: random.Random) -> ImagePrompt:
    kind = rng.choice(KINDS[:2])
    rows, width = rng.choice([1, 1, 2]), adapter(kind).spec.token_width
    tokens = torch.randn(rows + 1, rng.choice([4, 8]), width, generator=generator(rng))
    return ImagePrompt(adapter(kind), tokens[:rows], tokens[rows:], torch.ones(tokens[:rows].shape[:2]))


def conditioning(rng: random.Random) -> Any:
    return [[torch.randn(1, 7, 768, generator=generator(rng)), {}]]


def params(rng: random.Random) -> dict[str, list[Any]]:
    count = rng.choice([1, 2])
    return {
        "image": [picture(rng) for _ in range(count)],
        "attn_mask": [rng.choice([None, mask(rng)]) for _ in range(count)],
        "weight": [rng.uniform(-1, 3) for _ in range(count)],
        "weight_type": [rng.choice(["linear", "ease in", "style transfer"]) for _ in range(count)],
        "start_at": [0.0] * count,
        "end_at": [1.0] * count,
    }


def strategy(rng: random.Random) -> dict[str, Any]:
    timing = rng.choice(["custom", "linear", "ease_in", "random"])
    return {"weights": "1.0, 0.2", "timing": timing, "frames": rng.choice([0, 1, 16]), "frame_count": 3}


def ipadapter(rng: random.Random) -> Any:
    kind = rng.choice(KINDS)
    raw = tiny.adapter_tensors(kind, tiny.SD15) if rng.random() < 0.1 else adapter(kind)
    return {"ipadapter": {"file": "a.bin", "model": raw}} if rng.random() < 0.2 else raw


def layer_weights(rng: random.Random) -> dict[str, float]:
    return {name: rng.uniform(-1, 5) for name in ("input 1", "middle", "output 11")}


def latent(rng: random.Random) -> dict[str, Any]:
    return {"samples": torch.zeros(1, 4, rng.choice([1, 2, 4, 8]), rng.choice([2, 4, 8]))}


def watch(rng: random.Random) -> Watch:
    """One that saw two prompts in one picture."""
    made, place = Watch(8, lambda: "1"), Place((4, 4), Crop(0, 0, 8, 8, 8, 8), (0,))
    run = Recording(full=(8, 8), pictures=1, calls=1)
    for name in ("a.safetensors", "b.bin"):
        sums = run.maps.setdefault(Applied(name, 16), HeatSums())
        sums.add(place, torch.rand(1, 16, generator=generator(rng)))
    made.runs["1"] = run
    return made


# what older packs for transformers call their adapters
TRANSFORMERS = (
    "IP_ADAPTER_FLUX",
    "IP_ADAPTER_FLUX_INSTANTX",
    "IP_ADAPTER_SD3_INSTANTX",
    "IP_ADAPTER_WAN_INSTANTX",
)
MEANT: dict[str, Draw] = {
    "MODEL": lambda rng: model(),
    "CLIP_VISION": lambda rng: encoder(),
    "IPADAPTER": ipadapter,
    "IMAGE": picture,
    "MASK": mask,
    "EMBEDS": embeds,
    "CLIP_VISION_OUTPUT": encoder_output,
    "IMAGE_PROMPT": image_prompt,
    "IMAGE_PROMPT,IMAGE": lambda rng: rng.choice([image_prompt, picture])(rng),
    **dict.fromkeys(TRANSFORMERS, ipadapter),
    "FACES": lambda rng: given_faces(rng.choice([1, 2, 3]), rng.randrange(100)),
    "INSIGHTFACE": lambda rng: GivenFaceModel(),
    "LAYER_WEIGHTS": layer_weights,
    "CONDITIONING": conditioning,
    "IPADAPTER_PARAMS": params,
    "WEIGHTS_STRATEGY": strategy,
    "LATENT": latent,
    "IMAGE_PROMPT_WATCH": watch,
    "BOOLEAN": lambda rng: rng.random() < 0.5,
}
TEXTS = {
    "folder": [""],
    "curves": ["", "0:0.2, 0.8:1\nflat"],
    "image_weights": ["", "1", "1, 0.5", "1,0.5,0.5", "1;0.5"],
    "layer_weights": ["", "3:2.5, 6:1", "0:1", "15:-1,3:0.5"],
    "weights": ["", "1.0, 0.0", "0.5", "1\n0.2\n0.7"],
    "prompt": ["", "a cat\na dog", "x"],
    "filename_prefix": ["fuzz/one"],
    "name": ["fuzz"],
}


def number(rng: random.Random, kind: str, options: dict[str, Any]) -> float | int:
    low, high = options.get("min", -10), options.get("max", 10)
    if kind == "INT":
        near = [
            low,
            high,
            options.get("default", low),
            min(high, low + 1),
            min(high, low + rng.randrange(1, 20)),
        ]
        return rng.choice(near)
    return rng.choice(
        [low, high, options.get("default", low), rng.uniform(low, high), rng.uniform(low, high)]
    )


def meant(rng: random.Random, name: str, declared: tuple[Any, ...]) -> Any:
    """A value of the right type inside the declared range."""
    kind, options = declared[0], declared[1] if len(declared) > 1 else {}
    if not isinstance(kind, str):
        return rng.choice(list(kind)) if kind else "nothing.safetensors"
    if kind in ("FLOAT", "INT"):
        return number(rng, kind, options)
    if kind == "STRING":
        return rng.choice(TEXTS.get(name, ["", "text"]))
    return MEANT[kind](rng)


# --- odd ---------------------------------------------------------------------------------------------------------

ANYTHING: tuple[Any, ...] = (
    None, "", "text", "nan", b"bytes", 0, -1, 10**30, 10**400, NAN, INF, -INF, 1e308, 1e30, True, 1j, object(), (), [], {},
    [None], [NAN], [1.0, INF], ["1", "x"], {"samples": 1}, {"a": NAN}, np.zeros(3), np.float32(NAN), np.ones((1, 4, 4, 3)),
    torch.tensor(NAN), torch.zeros(0), torch.tensor(1.0), torch.ones(2, 3), range(3), lambda: None, int,
)  # fmt: skip


def poked(tensor: Tensor, value: float) -> Tensor:
    made = tensor.clone()
    made.view(-1)[made.numel() // 2] = value
    return made


def odd_tensor(rng: random.Random, usual: Tensor) -> Any:
    """A tensor of the kind with something wrong: a number, a dimension, its type, its layout."""
    ways: list[Callable[[], Any]] = [
        lambda: poked(usual, NAN), lambda: poked(usual, INF), lambda: poked(usual, -INF),
        lambda: usual * 1e38, lambda: usual * 1e20, lambda: usual * -1e5, lambda: usual[:0], lambda: usual[..., :0],
        lambda: usual[None], lambda: usual[None, None], lambda: usual[0], lambda: usual.double(), lambda: usual.half(),
        lambda: usual.to(torch.bfloat16), lambda: (usual * 255).to(torch.uint8), lambda: usual.long(),
        lambda: usual.bool(), lambda: usual.to(torch.complex64), lambda: usual.to("meta"), lambda: usual.to_sparse(),
        lambda: usual.to(torch.float8_e4m3fn), lambda: usual.repeat(*[1] * (usual.ndim - 1), 2), lambda: usual.numpy(),
        lambda: usual.movedim(-1, 1) if usual.ndim > 2 else usual.T, lambda: usual[..., :1].expand_as(usual),
        lambda: torch.full((1, 1, 300, 3), 0.5), lambda: torch.rand(5, *usual.shape[1:]), lambda: usual.tolist(),
        lambda: usual.requires_grad_(), lambda: usual[:1, :1], lambda: torch.zeros_like(usual),
    ]  # fmt: skip
    return rng.choice(ways)()


def odd_adapter(rng: random.Random) -> Any:
    raw = tiny.adapter_tensors(rng.choice(KINDS[:2]), tiny.SD15)
    role = rng.choice(list(raw))
    key = rng.choice(sorted(raw[role]))
    ways: list[Callable[[], Any]] = [
        lambda: poked(raw[role][key], rng.choice([NAN, INF])), lambda: raw[role][key][:0], lambda: None, lambda: "text",
    ]  # fmt: skip
    changed = {**raw, role: {**raw[role], key: rng.choice(ways)()}}
    return rng.choice(
        [changed, changed, {**raw, role: {}}, {**raw, role: None}, {"ipadapter": {"model": changed}}]
    )


def odd_dict(rng: random.Random, usual: dict[str, Any]) -> Any:
    key = rng.choice(sorted(usual))
    without = {k: v for k, v in usual.items() if k != key}
    return rng.choice([without, {**usual, key: odd_anything(rng)}, {**usual, key: [odd_anything(rng)]}])


def odd_prompt(rng: random.Random) -> Any:
    usual = image_prompt(rng)
    side = rng.choice(["cond", "uncond", "value_scale"])
    return ImagePrompt(
        **{
            **{name: getattr(usual, name) for name in ("adapter", "cond", "uncond", "value_scale")},
            side: poked(getattr(usual, side), rng.choice([NAN, INF, 1e30])),
        }
    )


def odd_anything(rng: random.Random) -> Any:
    return rng.choice(ANYTHING)


def odd(rng: random.Random, name: str, declared: tuple[Any, ...]) -> Any:
    """A value outside the declared range or of an odd type."""
    kind = declared[0]
    if rng.random() < 0.3:
        return odd_anything(rng)
    if not isinstance(kind, str):
        return rng.choice(["", "no such word", "../../x", "\0", "LINEAR ", 7, "x" * 5000])
    if kind in ("FLOAT", "INT"):
        return rng.choice(
            [NAN, INF, -INF, 1e308, -1e30, 10**18, -5, 7, 99999, 0.3, "0.5", "nan", "1e400", [], [1.0, NAN]]
        )
    if kind == "STRING":
        return rng.choice(
            ["nan", "1e400", "1,,x", "3:nan", "../x", "\ud800", "1 2 3 4 5 6", 3.5, "9" * 500, "1:1:1"]
        )
    if kind == "IPADAPTER":
        return odd_adapter(rng)
    if kind == "IMAGE_PROMPT":
        return odd_prompt(rng)
    if kind not in MEANT:
        return odd_anything(rng)
    usual = MEANT[kind](rng)
    if isinstance(usual, Tensor):
        return odd_tensor(rng, usual)
    return odd_dict(rng, usual) if isinstance(usual, dict) else odd_anything(rng)
