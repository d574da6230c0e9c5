"""Flux and SD3.5 as training needs them: the objective of a flow, what each kind of adapter reads, the network's call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.adapter import KeysValues, TimedKeysValues
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.families.flux import CHROMA, FLUX
from ..ipadapter_core.families.sd3 import SD3
from ..ipadapter_core.families.table import family_of
from ..ipadapter_core.spec import Unconditional, Variant
from ..ipadapter_core.training.base import Texts
from ..ipadapter_core.training.batches import CropInfo
from ..ipadapter_core.training.config import TrainingConfig, UnetDtype
from ..ipadapter_core.training.flow import Flow
from ..ipadapter_core.training.kinds import DEFAULT_TIMESTEPS
from ..ipadapter_core.training.precision import DTYPES
from ..ipadapter_core.variants import Reading, reading_of
from .attach import attachment_of
from .attach.blocks import OVERRIDE
from .attach.trained import Attached
from .captions import plain_tokens
from .frozen import checkpoint_blocks, clone_inputs_of_norms, in_training
from .training import HostBase, differentiable, to_cpu
from .vision import features_for_training

# of sample pictures: guidance-distilled models have none of their own
_CFG = {FLUX.name: 1.0, CHROMA.name: 4.0, SD3.name: 4.5}
_SAMPLE_GUIDANCE = 3.5


class TransformerBase(HostBase):
    """As HostBase, for a Flux, Chroma or SD3.5. Raises MismatchError for a model that reads more than latents and text."""

    SCHEDULER = "simple"

    def __init__(self, *given: Any, **more: Any):
        super().__init__(*given, **more)
        self.architecture = family_of(self.sites).architecture
        attachment_of(self.architecture).require_hooks(hasattr(self.model, "add_wrapper_with_key"))
        self.CFG = _CFG[self.architecture.name]
        self._guidance, self._kind = TrainingConfig().guidance, Variant.INSTANTX
        self._attached: Attached | None = None
        _require_plain(self.model.get_model_object("diffusion_model"), self.latent_channels)

    def _objective(self) -> Flow:
        sampling: Any = self.model.get_model_object("model_sampling")
        one = torch.ones(1)
        scale = float(sampling.timestep(one))
        default = DEFAULT_TIMESTEPS[family_of(self.sites).architecture.adapters_of]
        return Flow(lambda t: sampling.sigma(sampling.timestep(t)), scale, default)

    def compute_in(self, config: TrainingConfig) -> None:
        super().compute_in(config)
        self._guidance = config.guidance
        if config.kind is not self._kind:
            self._kind, self._attached = config.kind, None

    def _precision(self, config: TrainingConfig) -> tuple[torch.dtype, bool]:
        """As it is loaded: bf16 is what these models are published and trained through in. Two half precisions are never
        mixed."""
        if config.unet is not UnetDtype.AUTO:
            return DTYPES[config.unet.value], False
        half = DTYPES.get(config.precision.value)
        return self._loaded if half is None or self._loaded is torch.float32 else half, False

    def _make_differentiable(self, gradient_checkpointing: bool) -> None:
        blocks = [self.unet.get_submodule(site.path) for site in self.sites]
        # SD3's blocks add to nothing in place
        if self.architecture.name != SD3.name:
            clone_inputs_of_norms(blocks)
        if gradient_checkpointing:
            checkpoint_blocks(blocks)
        self._attached = None

    # --- encoders ---

    @torch.inference_mode()
    def features(self, kind: Variant, *pictures: Tensor) -> Tensor:
        """As HostBase.features; CLIP sees the middle of a picture, SigLIP the whole of it squashed."""
        return to_cpu(features_for_training(self.clip_vision, pictures, self._reading(kind).feature, None))

    @torch.inference_mode()
    def no_features(self, kind: Variant) -> Tensor:
        """What stands for 'no image', one row: a black picture for XLabs (xflux_pipeline.py), zeros for InstantX."""
        black = self.features(kind, torch.zeros(1, 32, 32, 3))
        return (
            black
            if self._reading(kind).unconditional is Unconditional.BLACK_PICTURE
            else torch.zeros_like(black)
        )

    def _reading(self, kind: Variant) -> Reading:
        return reading_of(kind, self.architecture.adapters_of)

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Texts:
        """As long as the empty caption's, which the host's encoder is given to."""
        parts = [self._encoded(caption) for caption in captions]
        context = torch.cat([_to_length(part[0], self._text_length) for part in parts])
        pooled = [part[1] for part in parts]
        return Texts(to_cpu(context), None if pooled[0] is None else to_cpu(torch.cat(pooled)))

    def _encoded(self, caption: str) -> Any:
        return self.clip.encode_from_tokens(plain_tokens(self.clip, caption), return_pooled=True)

    @cached_property
    def _text_length(self) -> int:
        return self._encoded("")[0].shape[1]

    # --- the transformer ---

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        texts: Texts,
        crops: Sequence[CropInfo],
        pairs: KeysValues | TimedKeysValues,
    ) -> Tensor:
        """The velocity from noisy latents (n, c, h, w), text and image, fp32. pairs may be empty."""
        base, dtype = self._own.model, self.dtype
        noisy, times = noisy.to(dtype), timesteps.to(noisy.device).float()
        options: dict[str, Any] = {"cond_or_uncond": [0], OVERRIDE: differentiable}
        if self._attached is None:
            entry = self._reading(self._kind).entry
            self._attached = Attached(entry, self.unet, self.sites)
        self._attached.put(options, pairs, noisy, times)
        context, more = self._conditions(texts, noisy)
        with in_training():
            out = base.diffusion_model(noisy, times, context=context, transformer_options=options, **more)
        return out.float()

    def _conditions(self, texts: Texts, noisy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The text, and all else that this model reads, by the host: of Flux pooled text and guidance."""
        rows, device = noisy.shape[0], noisy.device
        pooled = None if texts.pooled is None else texts.pooled.to(device)
        given = {"cross_attn": texts.context.to(device), "pooled_output": pooled}
        guided = self._guided(self._guidance)
        found = self._own.model.extra_conds(device=device, noise=noisy, **given, **guided)
        made = {
            name: cond.process_cond(batch_size=rows, device=device, area=None).cond.to(device)
            for name, cond in found.items()
        }
        cast = {name: t.to(noisy.dtype) if t.is_floating_point() else t for name, t in made.items()}
        return cast.pop("c_crossattn"), cast

    def _condition(self, text: str) -> list[Any]:
        [[context, more]] = super()._condition(text)
        return [[context, {**more, **self._guided(_SAMPLE_GUIDANCE)}]]

    def _guided(self, guidance: float) -> dict[str, float]:
        """Chroma reads one too, and is always told 0."""
        return {"guidance": guidance} if self.architecture.name == FLUX.name else {}


def _require_plain(network: Any, channels: int) -> None:
    read = getattr(getattr(network, "img_in", None), "in_features", 4 * channels)
    if read not in (channels, 4 * channels):
        raise MismatchError(
            f"the connected model reads {read // 4} channels where its latents have {channels}: it is one for filling in or "
            "for a control image (Flux.1 Fill, Canny, Depth), and is given no such image while an adapter is trained. Load "
            "Flux.1 dev or schnell, or another model that makes pictures from text."
        )


def _to_length(context: Tensor, length: int) -> Tensor:
    """(1, t, d) -> (1, length, d): cut, or followed by zeros."""
    return torch.nn.functional.pad(context[:, :length], (0, 0, 0, max(0, length - context.shape[1])))
