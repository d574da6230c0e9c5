"""A small transformer of our own that gives patches what ComfyUI's Flux of 0.3.64 and later gives them.

It lets tests of host/attach/flux.py run on hosts that have no such hooks: entries of patches_replace["dit"] around each
block with the block in `original_block`, an override of the attention in transformer_options, rotations in `pe`, text in
front of the picture, other pictures behind it, and wrappers around the model's calls.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .tiny_flux import CHANNELS, CONTEXT, DIM, HEADS, WIDTH, lively_

APPLY, SAMPLE, OUTER = "apply_model", "sampler_sample", "outer_sample"  # the host's names of wrappers
OVERRIDE = "optimized_attention_override"
NEGATIVE, POSITIVE = 1, 0
# what hosts hand to an override: the attention that it calls is not to ask for it again
INSIDE = {"_inside_attn_wrapper": True}


def hooks() -> SimpleNamespace:
    """What `comfy.patcher_extension` names, for hosts that have no such module."""
    return SimpleNamespace(
        WrappersMP=SimpleNamespace(APPLY_MODEL=APPLY, SAMPLER_SAMPLE=SAMPLE, OUTER_SAMPLE=OUTER),
        CallbacksMP=SimpleNamespace(ON_CLEANUP="on_cleanup"),
        WrapperExecutor=SimpleNamespace(
            new_class_executor=lambda call, owner, found: SimpleNamespace(
                execute=Executor(call, owner, found)
            )
        ),
    )


def install_hooks(monkeypatch: Any) -> None:
    """On hosts without hooks for transformers: those that host/attach asks for."""
    if not hasattr(host_attention, "wrap_attn"):
        monkeypatch.setitem(sys.modules, "comfy.patcher_extension", hooks())
        monkeypatch.setattr(host_attention, "wrap_attn", None, raising=False)


# --- the network -----------------------------------------------------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """(rows, heads, N, d) thrice -> (rows, N, heads · d)"""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attend(parts: Tensor, pe: Tensor, options: Mapping[str, Any]) -> Tensor:
    """parts (3, rows, heads, N, d): q, k and v."""
    q, k, v = rotated(parts[0], pe), rotated(parts[1], pe), parts[2]
    override = options.get(OVERRIDE)
    if override is None:
        return attention(q, k, v, HEADS, skip_reshape=True, transformer_options=options)
    return override(attention, q, k, v, HEADS, skip_reshape=True, transformer_options=options, **INSIDE)


def rotations(tokens: int) -> Tensor:
    """(1, 1, N, d/2, 2, 2)"""
    angles = torch.arange(tokens)[:, None] / 10 ** torch.linspace(0, 3, DIM // 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2))[None, None]


def rotated(x: Tensor, pe: Tensor) -> Tensor:
    return (pe @ x.to(pe.dtype).unflatten(-1, (-1, 2))[..., None]).flatten(-3).to(x.dtype)


class Block(nn.Module):
    hidden_size, num_heads = WIDTH, HEADS

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)

    def parts(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(x)), "b n (t h d) -> t b h n d", t=3, h=HEADS)
        return torch.stack((F.normalize(q, dim=-1) * DIM**0.5, F.normalize(k, dim=-1) * DIM**0.5, v))


class DoubleBlock(Block):
    def __init__(self) -> None:
        super().__init__()
        self.of_text = Block()

    def forward(
        self, img: Tensor, txt: Tensor, pe: Tensor, options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        out = attend(torch.cat((self.of_text.parts(txt), self.parts(img)), 3), pe, options)
        text, image = out[:, : txt.shape[1]], out[:, txt.shape[1] :]
        img += self.proj(image)
        return img, txt + self.of_text.proj(text)


class SingleBlock(Block):
    def forward(self, x: Tensor, pe: Tensor, options: Mapping[str, Any]) -> Tensor:
        return x + self.proj(attend(self.parts(x), pe, options))


class Transformer(nn.Module):
    def __init__(self, double: int = 2, single: int = 2):
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(CONTEXT, WIDTH)
        self.out = nn.Linear(WIDTH, 4 * CHANNELS)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(double))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(single))

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        transformer_options: Mapping[str, Any],
        ref_latents: Any = None,
        **_: Any,
    ) -> Tensor:
        h, w = x.shape[-2:]
        img, own = self._tokens(x)
        if ref_latents is not None:
            img = torch.cat((img, self._tokens(ref_latents)[0]), 1)
        img, txt = self.img_in(img) + timestep[:, None, None].to(img), self.txt_in(context)
        x = self._blocks(img, txt, {**transformer_options})
        tokens = self.out(x[:, txt.shape[1] :][:, : own[0] * own[1]])
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=own[0], p=2, q=2)[..., :h, :w]

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
        return tokens, (x.shape[-2] // 2, x.shape[-1] // 2)

    def _blocks(self, img: Tensor, txt: Tensor, options: dict[str, Any]) -> Tensor:
        pe = rotations(txt.shape[1] + img.shape[1])
        replaced = options.get("patches_replace", {}).get("dit", {})
        for n, block in enumerate(self.double_blocks):

            def both(a: Mapping[str, Any], block: nn.Module = block) -> dict[str, Tensor]:
                return dict(
                    zip(
                        ("img", "txt"),
                        block(a["img"], a["txt"], a["pe"], a.get("transformer_options")),
                        strict=True,
                    )
                )

            given = {"img": img, "txt": txt, "pe": pe, "transformer_options": options}
            out = _run(both, given, replaced.get(("double_block", n)))
            img, txt = out["img"], out["txt"]
        x = torch.cat((txt, img), 1)
        for n, block in enumerate(self.single_blocks):

            def one(a: Mapping[str, Any], block: nn.Module = block) -> dict[str, Tensor]:
                return {"img": block(a["img"], a["pe"], a.get("transformer_options"))}

            given = {"img": x, "pe": pe, "transformer_options": options}
            x = _run(one, given, replaced.get(("single_block", n)))["img"]
        return x


def _run(
    block: Callable[..., dict[str, Tensor]], given: dict[str, Any], replacement: Any
) -> dict[str, Tensor]:
    return block(given) if replacement is None else replacement(given, {"original_block": block})


# --- as the host holds it --------------------------------------------------------------------------------------------


class Sampling:
    def percent_to_sigma(self, percent: float) -> float:
        return 1.0 - percent

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * 1000


class Model:
    """As the host's BaseModel."""

    def __init__(self, network: nn.Module):
        self.diffusion_model, self.model_sampling = network, Sampling()


class Executor:
    """As the host's WrapperExecutor: the call itself within wrappers."""

    def __init__(self, call: Callable[..., Tensor], owner: Any, wrappers: list[Any]):
        self.call, self.class_obj, self.wrappers = call, owner, wrappers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.call(*args, **kwargs)
        return self.wrappers[0](Executor(self.call, self.class_obj, self.wrappers[1:]), *args, **kwargs)


class Patcher:
    """As the host's ModelPatcher, as far as image prompts and packs that patch blocks need it."""

    def __init__(self, model: Model):
        self.model = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.object_patches: dict[str, Any] = {}
        self.object_patches_backup: dict[str, Any] = {}
        self.wrappers: dict[Any, dict[str, list[Any]]] = {}
        self.callbacks: dict[Any, dict[str, list[Any]]] = {}
        self.additional_models: dict[str, list[Any]] = {}

    def clone(self) -> Patcher:
        made = Patcher(self.model)
        made.wrappers, made.callbacks = (
            {kind: {key: [*found] for key, found in each.items()} for kind, each in mine.items()}
            for mine in (self.wrappers, self.callbacks)
        )
        made.additional_models = {
            key: [each.clone() for each in found] for key, found in self.additional_models.items()
        }
        options = self.model_options["transformer_options"]
        replaced = {name: {**slots} for name, slots in options.get("patches_replace", {}).items()}
        made.model_options = {"transformer_options": {**options, "patches_replace": replaced}}
        return made

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)

    def add_wrapper_with_key(self, kind: Any, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, kind: Any, key: str) -> None:
        self.wrappers.get(kind, {}).pop(key, None)

    def get_wrappers(self, kind: Any, key: str) -> list[Any]:
        return self.wrappers.get(kind, {}).get(key, [])

    def add_callback_with_key(self, kind: Any, key: str, callback: Any) -> None:
        self.callbacks.setdefault(kind, {}).setdefault(key, []).append(callback)

    def get_callbacks(self, kind: Any, key: str) -> list[Any]:
        return self.callbacks.get(kind, {}).get(key, [])

    def set_additional_models(self, key: str, models: list[Any]) -> None:
        self.additional_models[key] = models

    def get_additional_models_with_key(self, key: str) -> list[Any]:
        return self.additional_models.get(key, [])

    def set_model_patch_replace(self, patch: Any, name: str, block: str, number: int) -> None:
        options = self.model_options["transformer_options"]
        options.setdefault("patches_replace", {}).setdefault(name, {})[(block, number)] = patch


def stand_in(double: int = 2, single: int = 2) -> Patcher:
    network = Transformer(double, single).requires_grad_(False).eval()
    lively_(dict(network.state_dict()), 5)
    return Patcher(Model(network))


def sample(
    patcher: Patcher,
    steps: int = 3,
    cfg: float = 3.0,
    pictures: int = 1,
    size: tuple[int, int] = (8, 12),
    refs: Tensor | None = None,
) -> Tensor:
    """Latents of the random stand-in, with texts at random."""
    noise = torch.randn(pictures, CHANNELS, *size, generator=torch.Generator().manual_seed(9))
    texts: Texts = {}
    for name in ("positive", "negative") if cfg != 1.0 else ("positive",):
        context = torch.randn(1, 7, CONTEXT, generator=torch.Generator().manual_seed(len(name)))
        texts[name] = {"context": context} if refs is None else {"context": context, "ref_latents": refs}
    return denoised(patcher, noise, torch.linspace(1, 0, steps + 1), cfg, texts)


Texts = dict[str, dict[str, Tensor]]


def denoised(patcher: Patcher, noise: Tensor, sigmas: Tensor, cfg: float, texts: Texts) -> Tensor:
    """Euler steps with the negative where there is one, in one call of both, as the host's sampler makes them.

    texts: what the network is given beside latents, by name, "positive" and "negative"; one row, or one a picture.
    """
    options = copy.copy(patcher.model_options)
    wrappers = {str(getattr(kind, "value", kind)): {**each} for kind, each in patcher.wrappers.items()}
    options["transformer_options"] = {**options["transformer_options"], "wrappers": wrappers}
    guider = SimpleNamespace(
        conds={name: [{"uuid": name, "model_conds": {}}] for name in texts}, inner_model=patcher.model
    )

    def steps_of(guider: Any, sigmas: Tensor, extra: dict[str, Any], callback: Any, x: Tensor) -> Tensor:
        for sigma, after in pairwise(sigmas):
            noises = _denoise(guider, x, sigma, extra["model_options"], texts)
            direction = noises["positive"]
            if "negative" in noises:
                direction = noises["negative"] + cfg * (direction - noises["negative"])
            x = x + direction * (after - sigma)
        return x

    def run(noise: Tensor) -> Tensor:
        around = [wrapper for found in wrappers.get(SAMPLE, {}).values() for wrapper in found]
        return Executor(steps_of, guider, around)(guider, sigmas, {"model_options": options}, None, noise)

    outer = [wrapper for found in wrappers.get(OUTER, {}).values() for wrapper in found]
    with torch.inference_mode():
        return Executor(run, guider, outer)(noise)


def _denoise(guider: Any, x: Tensor, sigma: Tensor, model_options: Any, texts: Texts) -> dict[str, Tensor]:
    """One call with all conditionings, the negative first."""
    names = sorted(guider.conds)
    conds = [guider.conds[name][0] for name in names]
    options: dict[str, Any] = {**model_options["transformer_options"], "sigmas": sigma[None]}
    options["cond_or_uncond"] = [NEGATIVE if name == "negative" else POSITIVE for name in names]
    options["uuids"] = [cond["uuid"] for cond in conds]
    made = [
        {
            key: cond.process_cond(batch_size=len(x), device=x.device, area=None).cond
            for key, cond in each["model_conds"].items()
        }
        for each in conds
    ]
    extra = {key: torch.cat([each[key] for each in made]) for key in made[0]}
    extra |= {
        key: torch.cat([texts[name][key].expand(len(x), *value.shape[1:]) for name in names])
        for key, value in texts[names[0]].items()
    }
    context = extra.pop("context")
    found = [w for each in options["wrappers"].get(APPLY, {}).values() for w in each]
    call = Executor(_apply_model(guider.inner_model), guider.inner_model, found)
    rows = torch.cat([x] * len(names))
    times = sigma.expand(len(rows))
    out = call(rows, times, None, context, None, options, **extra)
    return dict(zip(names, out.chunk(len(names)), strict=True))


def _apply_model(model: Model) -> Callable[..., Tensor]:
    def apply(x: Tensor, t: Tensor, concat: None, context: Tensor, control: None, options: Any, **more: Any):
        return model.diffusion_model(x, t, context, transformer_options=options, **more)

    return apply
