"""The host's model as training needs it: a frozen copy with gradients through it, and encoders of pictures and texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_base
import comfy.model_management as mm
import comfy.sample
import comfy.utils
import torch
from torch import Tensor, nn

from ..ipadapter_core.adapter import KeysValues, TimedKeysValues
from ..ipadapter_core.attention import by_head, image_attention
from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.faces.analysis import FaceAnalysis
from ..ipadapter_core.faces.detect import LARGEST_FACES, NoFace, detect_faces
from ..ipadapter_core.families.site import Site
from ..ipadapter_core.families.table import family_of, model_sites
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.spec import Feature, Identity, Variant
from ..ipadapter_core.training.base import SampleRequest, Texts
from ..ipadapter_core.training.batches import CropInfo
from ..ipadapter_core.training.config import Latents, Precision, TrainingConfig, VaeDtype
from ..ipadapter_core.training.kinds import require_kind
from ..ipadapter_core.training.lora import TrainableLora
from ..ipadapter_core.training.objective import Diffusion, Objective
from ..ipadapter_core.training.precision import unet_dtype
from .adapters import HostAdapter
from .apply import apply_prompt
from .attach.unet import OVERRIDE, slot_of
from .captions import TEXT_TOKENS, plain_tokens
from .encoding import encode_faces, encode_prompt
from .frozen import (
    cast_unet,
    computes_in,
    enable_gradient_checkpointing,
    frozen_copy,
    in_training,
    keep_inputs_of_norms,
    keep_sums_in_fp32,
)
from .latents import VaeEncoding, encode_latents, frames_of
from .vision import Reference, features_for_training

log = logging.getLogger(__name__)
# in transformer_options: K', V' of every site, of this batch
PAIRS = "image_prompt_pairs"
# kinds that read the encoder's grid
GRID_KINDS = (Variant.PLUS, Variant.FULL)
FACE_WIDTH = 512


class HostBase:
    """A base model to train an adapter on. `unet` is a frozen copy, with the model's patches.

    owned: nobody else uses the model, so that it is trained through itself: one UNet in memory. faces: what finds faces in
    pictures, for adapters that read a face embedding.
    """

    # of sample pictures
    CFG, SCHEDULER = 7.5, "normal"

    def __init__(
        self,
        model: Any,
        vae: Any,
        clip: Any,
        clip_vision: Any,
        owned: bool = False,
        faces: FaceAnalysis | None = None,
    ):
        self.model, self.vae, self.clip, self.clip_vision = model, vae, clip, clip_vision
        self.owned, self.faces, self._encoding = owned, faces, VaeEncoding()
        self.sites: tuple[Site, ...] = model_sites(model.get_model_object("diffusion_model"))
        self.diffusion = self._objective()
        self._loaded = computes_in(model.model)
        self._weights, self._coarse = self._precision(TrainingConfig())
        self._opened = False
        self._lora_hooks: list[Any] = []

    @cached_property
    def _own(self) -> Any:
        """The frozen copy under the host's memory management."""
        with torch.inference_mode(False):
            copied = self.model if self.owned else frozen_copy(self.model)
            if self._weights is not self._loaded:
                cast_unet(copied, self._weights)
            if self._coarse:
                keep_sums_in_fp32(copied.model.diffusion_model)
            return copied

    @property
    def dtype(self) -> torch.dtype:
        """What the UNet computes in without autocast; fp32 where autocast chooses."""
        return torch.float32 if self._coarse else self._weights

    @property
    def latent_channels(self) -> int:
        return self.model.model.latent_format.latent_channels

    def compute_in(self, config: TrainingConfig) -> None:
        """Make the copy compute in the precision of this config. Raises SettingError for one too coarse for this model, or
        for settings that its family does not have."""
        require_kind(config, family_of(self.sites))
        self._encoding = VaeEncoding(config.vae is VaeDtype.AUTO, config.latents is Latents.SAMPLED)
        wanted = self._precision(config)
        if wanted != (self._weights, self._coarse):
            if self.owned and "_own" in self.__dict__:
                raise SettingError(
                    "this model is trained through itself, and cannot change its precision again."
                )
            # casting it twice would round it twice
            self.__dict__.pop("_own", None)
            (self._weights, self._coarse), self._opened = wanted, False

    def _precision(self, config: TrainingConfig) -> tuple[torch.dtype, bool]:
        """What the weights are held in, and whether autocast is too coarse for the sums between blocks."""
        coarse = config.precision is Precision.BF16
        if coarse and not family_of(self.sites).learns_in_bf16:
            raise SettingError(
                "precision is bf16, which rounds too coarsely to train through an SDXL UNet: its gradients agree with full "
                "precision to 0.997 only. Set precision to fp16, which costs the same and agrees to 0.9999, or to no."
            )
        if coarse and self._loaded is torch.float16 and config.kind is Variant.FACEID:
            raise SettingError(
                "kind is faceid, precision is bf16, and the UNet is loaded in fp16: two roundings, through which its "
                "gradients agree with full precision to 0.99897 only. Set precision to fp16 or no."
            )
        return unet_dtype(self._loaded, config), coarse

    def _objective(self) -> Objective:
        return _diffusion_of(self.model)

    @property
    def unet(self) -> nn.Module:
        return self._own.model.diffusion_model

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def load(self, gradient_checkpointing: bool) -> None:
        """Load the copy to its device, with gradients through it."""
        with torch.inference_mode(False):
            mm.load_models_gpu([self._own], force_full_load=True)
            if not self._opened:
                self._opened = True
                self.unet.requires_grad_(False).eval()
                self._make_differentiable(gradient_checkpointing)

    def _make_differentiable(self, gradient_checkpointing: bool) -> None:
        keep_inputs_of_norms(self.unet)
        if gradient_checkpointing:
            enable_gradient_checkpointing(self.unet)

    def attach_lora(self, lora: TrainableLora | None) -> None:
        """Compute with this LoRA from now on, in samples too, instead of the one before; None for none."""
        while self._lora_hooks:
            self._lora_hooks.pop().remove()
        if lora is not None:
            self._lora_hooks = lora.attach(self.unet)

    def diffusers_names(self) -> Mapping[str, str]:
        """Names of the UNet's attentions in diffusers, by their paths: those that the host's LoRA loader knows."""
        names = comfy.utils.unet_to_diffusers(self.model.model.model_config.unet_config)
        query = ".to_q.weight"
        return {
            own.removesuffix(query): theirs.removesuffix(query)
            for theirs, own in names.items()
            if theirs.endswith(query)
        }

    # --- encoders, each loaded by the host when it is needed ---

    @torch.inference_mode()
    def latents(self, pictures: Tensor) -> Tensor:
        """Pictures (n, H, W, 3) in 0..1 -> latents (n, 4, H/8, W/8) as the UNet reads them, fp32 on the CPU; with standard
        deviations (n, 8, H/8, W/8) where the config has them sampled."""
        return to_cpu(encode_latents(self.vae, self.model.model, pictures, self._encoding))

    @torch.inference_mode()
    def features(self, kind: Variant, *pictures: Tensor) -> Tensor:
        """Features for an adapter of this kind, of pictures (n, H, W, 3) each: (N, width) or (N, tokens, width).

        Raises SettingError for a picture in which no face is found, where they are faces.
        """
        if kind is Variant.FACEID:
            return to_cpu(torch.cat([self._identity(picture) for picture in pictures]))
        feature = Feature.PENULTIMATE if kind in GRID_KINDS else Feature.IMAGE_EMBEDS
        return to_cpu(features_for_training(self.clip_vision, pictures, feature))

    def _identity(self, picture: Tensor) -> Tensor:
        """The embedding of the largest face, of length 1: (1, 512)."""
        if self.faces is None:
            raise SettingError("kind is faceid, which needs a face model. Give face_model.")
        found, _ = detect_faces(picture, self.faces, LARGEST_FACES)
        return found.embeddings(normalise=True)

    @torch.inference_mode()
    def no_features(self, kind: Variant) -> Tensor:
        """What stands for 'no image', one row: zeros, or the encoder's features of zero pixels."""
        if kind in GRID_KINDS:
            return to_cpu(features_for_training(self.clip_vision, None, Feature.PENULTIMATE))
        if kind is Variant.FACEID:
            return torch.zeros(1, FACE_WIDTH)
        width = self.features(kind, torch.zeros(1, 32, 32, 3)).shape[-1]
        return to_cpu(torch.zeros(1, width))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Texts:
        tokens = [plain_tokens(self.clip, caption) for caption in captions]
        parts = [self.clip.encode_from_tokens(each, return_pooled=True) for each in tokens]
        pooled = [part[1] for part in parts]
        context = torch.cat([part[0][:, :TEXT_TOKENS].cpu() for part in parts])
        return Texts(to_cpu(context), None if pooled[0] is None else to_cpu(torch.cat(pooled)))

    # --- the UNet ---

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        texts: Texts,
        crops: Sequence[CropInfo],
        pairs: KeysValues | TimedKeysValues,
    ) -> Tensor:
        """The UNet's prediction from noisy latents (n, 4, h, w), text and image: noise or v, fp32. pairs may be empty."""
        base, dtype = self._own.model, self.dtype
        options = {
            "patches_replace": {
                "attn2": {slot_of(site): _Slot(i) for i, site in enumerate(self.sites) if pairs}
            },
            "cond_or_uncond": [0],
            OVERRIDE: differentiable,
            PAIRS: pairs,
        }
        labels = self._labels(texts, crops)
        context = texts.context.to(noisy.device, dtype)
        more = {} if labels is None else {"y": labels.to(noisy.device, dtype)}
        times = timesteps.to(noisy.device).float()
        with in_training():
            out = base.diffusion_model(
                noisy.to(dtype), times, context=context, transformer_options=options, **more
            )
        return out.float()

    def sample(self, adapter: Checkpoint, request: SampleRequest) -> Tensor:
        """A picture (1, H, W, 3) sampled with this adapter, as the nodes would make it."""
        with torch.inference_mode():
            model = apply_prompt(self._own, self._prompt(HostAdapter(adapter), request.picture), 1.0)
            positive, negative = (self._condition(text) for text in (request.caption, ""))
            side = request.side // 8
            latent = torch.zeros(1, self.latent_channels, *frames_of(self.model.model), side, side)
            noise = comfy.sample.prepare_noise(latent, request.seed)
            cfg = self.CFG if request.cfg is None else request.cfg
            settings = (request.steps, cfg, "euler", self.SCHEDULER, positive, negative, latent)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._coarse):
                samples = comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=request.seed)
            picture = self.vae.decode(samples).flatten(0, -4)
        # sampling may have moved the copy off its device
        self.load(False)
        return to_cpu(picture)

    def _prompt(self, adapter: HostAdapter, picture: Tensor) -> ImagePrompt:
        """Of a picture or its largest face; a picture without one adds nothing."""
        if adapter.spec.identity is Identity.NONE or self.faces is None:
            return encode_prompt(adapter, self.clip_vision, Reference(picture))
        found, report = detect_faces(picture, self.faces, replace(LARGEST_FACES, no_face=NoFace.SKIP))
        if not any(found.present):
            log.warning(
                "Image Prompt: a sample is made without its picture, in which no face was found: %s", report
            )
        return encode_faces(adapter, None, found)

    def _condition(self, text: str) -> list[Any]:
        texts = self.texts([text])
        return [[texts.context, {} if texts.pooled is None else {"pooled_output": texts.pooled}]]

    def _labels(self, texts: Texts, crops: Sequence[CropInfo]) -> Tensor | None:
        """SDXL's size embeddings, by the host: original size, top left of the crop, target size. None for other families."""
        rows = []
        for number, crop in enumerate(crops):
            pooled = {} if texts.pooled is None else {"pooled_output": texts.pooled[number : number + 1]}
            (height, width), (top, left), (tall, wide) = crop.original, crop.top_left, crop.bucket
            row = self._own.model.encode_adm(
                **pooled, device=self.device, height=height, width=width, crop_h=top, crop_w=left,
                target_height=tall, target_width=wide,
            )  # fmt: skip
            if row is None:
                return None
            rows.append(row)
        return torch.cat(rows)


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients inside the host, which runs nodes in inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def stop_if_cancelled() -> None:
    """Raises what the host raises when the user presses Cancel."""
    mm.throw_exception_if_processing_interrupted()


class _Slot:
    """attn2 with gradients: the text attention plus Attn(Q, K', V') of the site with this number. λ is 1 (eq. 6)."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        keys, values = (by_head(tensor.to(q), heads) for tensor in options[PAIRS][self.number])
        return _pytorch_attention(q, k, v, heads) + image_attention(q, keys, values)


def _pytorch_attention(*args: Any, **options: Any) -> Tensor:
    """The host's attention that has a backward pass; the low-precision ones have none."""
    return host_attention.attention_pytorch(*args, **options)


def differentiable(_: Any, *args: Any, **options: Any) -> Tensor:
    """For all attention, on hosts where it can be overridden."""
    return _pytorch_attention(*args, **options)


def to_cpu(tensor: Tensor) -> Tensor:
    """fp32 on the CPU, and not an inference tensor."""
    with torch.inference_mode(False):
        return tensor.detach().to("cpu", torch.float32, copy=True).clone()


def _diffusion_of(model: Any) -> Diffusion:
    sigmas = model.get_model_object("model_sampling").sigmas.detach().clone().float().cpu()
    v_prediction = model.model.model_type == comfy.model_base.ModelType.V_PREDICTION
    return Diffusion(1 / (1 + sigmas**2), v_prediction)
