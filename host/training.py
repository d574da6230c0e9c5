"""The host's model as training needs it: a frozen copy with gradients through it, and encoders of pictures and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_base
import comfy.model_management as mm
import comfy.sample
import comfy.sd
import torch
from torch import Tensor, nn

from ..ipadapter_core.adapter import KeysValues
from ..ipadapter_core.attention import by_head, image_attention
from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.families.site import Site
from ..ipadapter_core.families.table import family_of, model_sites
from ..ipadapter_core.spec import Variant
from ..ipadapter_core.training.base import Texts, Wish
from ..ipadapter_core.training.batches import Frame
from ..ipadapter_core.training.objective import Diffusion
from ..ipadapter_core.training.precision import unet_dtype
from ..ipadapter_core.training.recipe import Precision, Recipe
from .adapters import HostAdapter
from .apply import apply_prompt
from .attach.unet import OVERRIDE, slot_of
from .captions import TEXT_TOKENS, plain_tokens
from .encoding import encode_prompt
from .frozen import (
    add_up_in_full,
    cast_unet,
    computes_in,
    frozen_copy,
    keep_inputs_of_norms,
    recompute_activations,
)
from .vision import Reference, features_for_training, load_clip_vision

PAIRS = "image_prompt_pairs"  # in transformer_options: K', V' of every site, of this batch


class HostBase:
    """A base model to train an adapter on. `unet` is a copy of its own, in the host's dtype, with the model's patches."""

    def __init__(self, model: Any, vae: Any, clip: Any, clip_vision: Any):
        self.model, self.vae, self.clip, self.clip_vision = model, vae, clip, clip_vision
        self.sites: tuple[Site, ...] = model_sites(model.get_model_object("diffusion_model"))
        self._loaded = computes_in(model.model)
        self._weights, self._coarse = unet_dtype(self._loaded, Recipe()), False
        self._opened = False

    @cached_property
    def _own(self) -> Any:
        """The frozen copy under the host's memory management."""
        with torch.inference_mode(False):
            copied = frozen_copy(self.model)
            if self._weights is not self._loaded:
                cast_unet(copied, self._weights)
            if self._coarse:
                add_up_in_full(copied.model.diffusion_model)
            return copied

    @property
    def dtype(self) -> torch.dtype:
        """What the UNet's own computations are in; fp32 where autocast is to choose."""
        return torch.float32 if self._coarse else self._weights

    def compute_in(self, recipe: Recipe) -> None:
        """Have the copy compute as goes with this recipe. Raises SettingError for what this UNet would learn wrongly in."""
        coarse = recipe.precision is Precision.BF16
        if coarse and not family_of(self.sites).learns_in_bf16:
            raise SettingError(
                "precision is bf16, which rounds too coarsely to learn through an SDXL UNet: its gradients agree with full "
                "precision to 0.997 only. Set precision to fp16, which costs the same and agrees to 0.9999, or to no."
            )
        wanted = unet_dtype(self._loaded, recipe), coarse
        if wanted != (self._weights, self._coarse):
            self.__dict__.pop("_own", None)  # casting it twice would round it twice
            (self._weights, self._coarse), self._opened = wanted, False

    @property
    def unet(self) -> nn.Module:
        return self._own.model.diffusion_model

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    @cached_property
    def diffusion(self) -> Diffusion:
        sigmas = self.model.get_model_object("model_sampling").sigmas.detach().clone().float().cpu()
        kinds = comfy.model_base.ModelType
        return Diffusion(1 / (1 + sigmas**2), self.model.model.model_type == kinds.V_PREDICTION)

    def load(self, recomputing: bool) -> None:
        """Bring the copy to its device and let gradients through it."""
        with torch.inference_mode(False):
            mm.load_models_gpu([self._own], force_full_load=True)
            if not self._opened:
                self._opened = True
                self.unet.requires_grad_(False).eval()
                keep_inputs_of_norms(self.unet)
                if recomputing:
                    recompute_activations(self.unet)

    # --- encoders, each loaded by the host when it is its turn ---

    @torch.inference_mode()
    def latents(self, pictures: Tensor) -> Tensor:
        """Pictures (n, H, W, 3) in 0..1 -> latents (n, 4, H/8, W/8) as the UNet reads them, fp32 on the CPU."""
        return _plain(self.model.model.process_latent_in(self.vae.encode(pictures)))

    @torch.inference_mode()
    def features(self, kind: Variant, picture: Tensor) -> Tensor:
        """What an adapter of this kind reads of pictures (n, H, W, 3): (n, width) or (n, tokens, width)."""
        return _plain(features_for_training(self.clip_vision, picture, kind is Variant.PLUS))

    @torch.inference_mode()
    def no_features(self, kind: Variant) -> Tensor:
        """What stands for 'no image', one row: zeros, or what the encoder makes of zero pixels."""
        if kind is Variant.PLUS:
            return _plain(features_for_training(self.clip_vision, None, True))
        width = self.features(kind, torch.zeros(1, 32, 32, 3)).shape[-1]
        return _plain(torch.zeros(1, width))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Texts:
        tokens = [plain_tokens(self.clip, caption) for caption in captions]
        parts = [self.clip.encode_from_tokens(each, return_pooled=True) for each in tokens]
        pooled = [part[1] for part in parts]
        context = torch.cat([part[0][:, :TEXT_TOKENS].cpu() for part in parts])
        return Texts(_plain(context), None if pooled[0] is None else _plain(torch.cat(pooled)))

    # --- the UNet ---

    def predict(
        self, noisy: Tensor, timesteps: Tensor, texts: Texts, frames: Sequence[Frame], pairs: KeysValues
    ) -> Tensor:
        """What the UNet says of noisy latents (n, 4, h, w) with text and image: its noise or v, fp32. pairs may be empty."""
        base, dtype = self._own.model, self.dtype
        options = {
            "patches_replace": {
                "attn2": {slot_of(site): _Slot(i) for i, site in enumerate(self.sites) if pairs}
            },
            "cond_or_uncond": [0],
            OVERRIDE: _differentiable,
            PAIRS: pairs,
        }
        labels = self._labels(texts, frames)
        context = texts.context.to(noisy.device, dtype)
        more = {} if labels is None else {"y": labels.to(noisy.device, dtype)}
        times = timesteps.to(noisy.device).float()
        with _training():
            out = base.diffusion_model(
                noisy.to(dtype), times, context=context, transformer_options=options, **more
            )
        return out.float()

    def paint(self, adapter: Checkpoint, wish: Wish) -> Tensor:
        """A picture (1, H, W, 3) sampled with this adapter, as the nodes would make it."""
        with torch.inference_mode():
            prompt = encode_prompt(HostAdapter(adapter), self.clip_vision, Reference(wish.picture))
            model = apply_prompt(self._own, prompt, 1.0)
            positive, negative = (self._condition(text) for text in (wish.caption, ""))
            channels, side = self.model.model.latent_format.latent_channels, wish.side // 8
            latent = torch.zeros(1, channels, side, side)
            noise = comfy.sample.prepare_noise(latent, wish.seed)
            settings = (wish.steps, wish.cfg, "euler", "normal", positive, negative, latent)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._coarse):
                samples = comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=wish.seed)
            picture = self.vae.decode(samples)
        self.load(False)  # sampling may have pushed the copy off its device
        return _plain(picture)

    def _condition(self, text: str) -> list[Any]:
        texts = self.texts([text])
        return [[texts.context, {} if texts.pooled is None else {"pooled_output": texts.pooled}]]

    def _labels(self, texts: Texts, frames: Sequence[Frame]) -> Tensor | None:
        """SDXL's size embeddings, by the host: original size, corner of the cut, size that is trained."""
        rows = []
        for number, shape in enumerate(frames):
            known = {} if texts.pooled is None else {"pooled_output": texts.pooled[number : number + 1]}
            (height, width), (top, left), (tall, wide) = shape.own, shape.corner, shape.bucket
            row = self._own.model.encode_adm(
                **known, device=self.device, height=height, width=width, crop_h=top, crop_w=left,
                target_height=tall, target_width=wide,
            )  # fmt: skip
            if row is None:
                return None
            rows.append(row)
        return torch.cat(rows)


@contextmanager
def gradients() -> Iterator[None]:
    """The host runs nodes in inference mode, in which nothing can be learnt."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def stop_if_cancelled() -> None:
    """Raises what the host raises when the user presses Cancel."""
    mm.throw_exception_if_processing_interrupted()


class _Slot:
    """attn2 with gradients: the text attention, and Attn(Q, K', V') of the site with this number. λ is 1 (eq. 6)."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        keys, values = (by_head(tensor.to(q), heads) for tensor in options[PAIRS][self.number])
        return _pytorch_attention(q, k, v, heads) + image_attention(q, keys, values)


def _pytorch_attention(*args: Any, **options: Any) -> Tensor:
    """The host's attention that has a backward pass; low-precision ones have none."""
    return host_attention.attention_pytorch(*args, **options)


def _differentiable(_: Any, *args: Any, **options: Any) -> Tensor:
    """For all attention of hosts that let it be overridden."""
    return _pytorch_attention(*args, **options)


@contextmanager
def _training() -> Iterator[None]:
    """Later hosts take differentiable ways while this flag stands."""
    before = getattr(mm, "in_training", None)
    if before is not None:
        mm.in_training = True
    try:
        yield
    finally:
        if before is not None:
            mm.in_training = before


def _plain(tensor: Tensor) -> Tensor:
    """fp32 on the CPU, and no inference tensor."""
    with torch.inference_mode(False):
        return tensor.detach().to("cpu", torch.float32, copy=True).clone()


def load_base(checkpoint: str, clip_vision: str) -> HostBase:
    """A base model from files, by the host's own loaders."""
    model, clip, vae = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=True, output_clip=True)[
        :3
    ]
    return HostBase(model, vae, clip, load_clip_vision(clip_vision))
