"""The host's model as training needs it: a frozen copy with gradients through it, and encoders of pictures and texts."""

from __future__ import annotations

import copy
import inspect
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
from torch.utils.checkpoint import checkpoint

from ...ipadapter_core.adapter import KeysValues
from ...ipadapter_core.attention import by_head, image_attention
from ...ipadapter_core.checkpoint import Checkpoint
from ...ipadapter_core.errors import RecipeError
from ...ipadapter_core.sites import Site, unet_sites
from ...ipadapter_core.spec import Variant
from ...ipadapter_core.training.batches import Frame
from ...ipadapter_core.training.objective import Diffusion
from ...ipadapter_core.training.recipe import Precision, Recipe
from ...ipadapter_core.training.trainee import SDXL_CONTEXT
from ...training.base import Texts, Wish
from ...training.precision import unet_dtype
from .adapters import HostAdapter
from .apply import apply_prompt
from .captions import TEXT_TOKENS, plain_tokens
from .patches import OVERRIDE
from .vision import Reference, encode_prompt, features_for_training, load_clip_vision

PAIRS = "image_prompt_pairs"  # in transformer_options: K', V' of every site, of this batch


class HostBase:
    """A base model to train an adapter on. `unet` is a copy of its own, in the host's dtype, with the model's patches."""

    def __init__(self, model: Any, vae: Any, clip: Any, clip_vision: Any):
        self.model, self.vae, self.clip, self.clip_vision = model, vae, clip, clip_vision
        self.sites: tuple[Site, ...] = unet_sites(model.get_model_object("diffusion_model"))
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
        """Have the copy compute as goes with this recipe. Raises RecipeError for what this UNet would learn wrongly in."""
        coarse = recipe.precision is Precision.BF16
        if coarse and self.sites[0].context_width == SDXL_CONTEXT:
            raise RecipeError(
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
            "patches_replace": {"attn2": {site.key: _Slot(i) for i, site in enumerate(self.sites) if pairs}},
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


# What a ModelPatcher remembers of the weights it changed; clones share it, a model of its own must not.
_OF_LOADING = {"backup": dict, "backup_buffers": dict, "object_patches_backup": dict, "pinned": set}


def frozen_copy(model: Any) -> Any:
    """The model with weights of its own, which no inference tensors are: autograd takes none."""
    mm.free_memory(1e30, model.load_device)  # weights as they were before patches, which the copy gets again
    known = inspect.signature(model.clone).parameters
    if "force_deepcopy" in known and getattr(model, "cached_patcher_init", None) is not None:
        return model.clone(force_deepcopy=True)
    twin = model.clone()
    twin.model = copy.copy(model.model)  # its config cannot be copied deep
    twin.model.__dict__["_modules"] = dict(model.model._modules)
    twin.model.diffusion_model = copy.deepcopy(model.model.diffusion_model)
    for name, empty in _OF_LOADING.items():
        if hasattr(twin, name):
            setattr(twin, name, empty())
    return twin


def computes_in(base: Any) -> torch.dtype:
    """What the host's UNet computes in: that of its weights, unless the host casts them as it goes."""
    casts = getattr(base, "manual_cast_dtype", None)
    return casts or next(p.dtype for p in base.diffusion_model.parameters() if p.is_floating_point())


def cast_unet(model: Any, dtype: torch.dtype) -> None:
    """Have a copy compute in this dtype. Where the host casts weights as it goes, they stay as they are."""
    base = model.model
    if getattr(base, "manual_cast_dtype", None) is not None:
        base.manual_cast_dtype = dtype
        return
    base.diffusion_model.to(dtype).dtype = dtype  # the host asks the UNet for its dtype
    model.size = 0  # remembered of the weights as they were


def add_up_in_full(unet: nn.Module) -> None:
    """For autocast to bf16: what blocks add up, and their norms, stay in fp32; only products are rounded. Without it
    gradients agree with those of fp32 to 0.998, with it to 0.999. On a copy of our own only."""
    for name, module in unet.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.float()
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and name.rpartition(".")[2] not in _WITHIN_BLOCKS:
            module.register_forward_hook(lambda _, inputs, output: output.float())


_WITHIN_BLOCKS = {"to_q", "to_k", "to_v", "proj"}  # whose output is not added to the block's input


def keep_inputs_of_norms(unet: nn.Module) -> None:
    """Older hosts add to a block's input in place, which its norms need for the backward pass. On a copy of our own only."""
    for block in unet.modules():
        if isinstance(block, host_attention.BasicTransformerBlock):
            for norm in (block.norm1, block.norm2, block.norm3):
                norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))


def recompute_activations(unet: nn.Module) -> None:
    """Keep no activations inside blocks for the backward pass; compute them twice. On a copy of our own only."""
    for module in unet.modules():
        if isinstance(module, host_attention.SpatialTransformer):
            module.forward = _recomputed_transformer(module.forward)
        elif type(module).__name__ == "ResBlock":
            module.forward = _recomputed(module.forward)


def _recomputed(forward: Any) -> Any:
    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)


def _recomputed_transformer(forward: Any) -> Any:
    """The host writes its place in the UNet into the options as it goes: the second time needs those of the first."""

    def run(
        x: Tensor, context: Tensor | None = None, transformer_options: dict[str, Any] | None = None
    ) -> Tensor:
        options = transformer_options or {}
        then = dict(options)
        out = checkpoint(lambda x, context: forward(x, context, dict(then)), x, context, use_reentrant=False)
        options["transformer_index"] = then.get("transformer_index", 0) + 1
        return out

    return run


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
