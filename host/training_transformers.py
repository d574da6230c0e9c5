"""Transformers as training needs them: the objective of a flow, what each kind of adapter reads, the network's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ipadapter_core.adapter import KeysValues, TimedKeysValues
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.families.flux import CHROMA, FLUX
from ..ipadapter_core.families.lumina import NEXT_DIT, Z_IMAGE
from ..ipadapter_core.families.qwen import QWEN
from ..ipadapter_core.families.sd3 import SD3
from ..ipadapter_core.families.table import family_of
from ..ipadapter_core.spec import Unconditional, Variant
from ..ipadapter_core.training.base import Texts, to_length
from ..ipadapter_core.training.batches import CropInfo
from ..ipadapter_core.training.config import TrainingConfig, UnetDtype
from ..ipadapter_core.training.flow import Flow
from ..ipadapter_core.training.kinds import DEFAULT_TIMESTEPS, kinds_for
from ..ipadapter_core.training.precision import DTYPES
from ..ipadapter_core.training.residuals import pairs_of_rows
from ..ipadapter_core.variants import Reading, reading_of
from .attach import attachment_of
from .attach.blocks import OVERRIDE
from .attach.trained import Attached
from .captions import MOST_TOKENS, plain_tokens
from .frozen import checkpoint_blocks, clone_inputs_of_norms, in_training
from .latents import frames_of
from .training import HostBase, differentiable, to_cpu
from .vision import features_for_training

# of sample pictures, by family or else architecture: guidance-distilled models have none of their own, and most people have
# the distilled Z-Image
_CFG = {
    FLUX.name: 1.0,
    CHROMA.name: 4.0,
    SD3.name: 4.5,
    QWEN.name: 4.0,
    NEXT_DIT.name: 4.0,
    Z_IMAGE.name: 1.0,
}
_SAMPLE_GUIDANCE = 3.5
# of every call of the network in training
_OPTIONS: dict[str, Any] = {"cond_or_uncond": [0], OVERRIDE: differentiable}


class TransformerBase(HostBase):
    """As HostBase, for a transformer. Raises MismatchError for a model that reads more than latents and text."""

    SCHEDULER = "simple"

    def __init__(self, *given: Any, **more: Any):
        super().__init__(*given, **more)
        family = family_of(self.sites)
        self.architecture = family.architecture
        attachment_of(self.architecture).require_hooks(hasattr(self.model, "add_wrapper_with_key"))
        self.CFG = _CFG.get(family.name, _CFG[self.architecture.name])
        self._guidance, self._kind = TrainingConfig().guidance, kinds_for(family)[0]
        # one for each length of text of a batch
        self._attached: list[Attached] = []
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
            self._kind, self._attached = config.kind, []

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
        self._attached = []

    # --- encoders ---

    @torch.inference_mode()
    def features(self, kind: Variant, *pictures: Tensor) -> Tensor:
        """As HostBase.features; CLIP sees the middle of a picture, SigLIP the whole of it squashed."""
        return to_cpu(features_for_training(self.clip_vision, pictures, self._reading(kind).feature, None))

    @torch.inference_mode()
    def no_features(self, kind: Variant) -> Tensor:
        """What stands for 'no image', one row: a black picture for XLabs (xflux_pipeline.py), zeros for InstantX and base,
        the encoder's features of zero pixels for plus."""
        reading = self._reading(kind)
        if reading.unconditional is Unconditional.ZERO_PIXELS:
            return to_cpu(features_for_training(self.clip_vision, None, reading.feature))
        black = self.features(kind, torch.zeros(1, 32, 32, 3))
        return black if reading.unconditional is Unconditional.BLACK_PICTURE else torch.zeros_like(black)

    def _reading(self, kind: Variant) -> Reading:
        return reading_of(kind, self.architecture.adapters_of)

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Texts:
        """As many tokens of each as the host gives it."""
        parts = [self._encoded(caption) for caption in captions]
        contexts, pooled = [part[0][:, :MOST_TOKENS] for part in parts], [part[1] for part in parts]
        lengths = [context.shape[1] for context in contexts]
        context = to_cpu(torch.cat([to_length(context, max(lengths)) for context in contexts]))
        known = None if pooled[0] is None else to_cpu(torch.cat(pooled))
        return Texts(context, known, torch.tensor(lengths))

    def _encoded(self, caption: str) -> Any:
        return self.clip.encode_from_tokens(plain_tokens(self.clip, caption), return_pooled=True)

    # --- the transformer ---

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        texts: Texts,
        crops: Sequence[CropInfo],
        pairs: KeysValues | TimedKeysValues,
    ) -> Tensor:
        """The velocity from noisy latents (n, c, h, w), text and image, fp32. pairs may be empty.

        Rows whose texts are as long run together: filled up, a text would be another one to these models.
        """
        noisy, times = noisy.to(self.dtype), timesteps.to(noisy.device).float()
        groups = texts.rows_by_length()
        while len(self._attached) < len(groups):
            made = Attached(self._reading(self._kind).entry, self.unet, self.sites, _OPTIONS)
            self._attached.append(made)
        parts = [
            self._velocity(
                attached, noisy[rows], times[rows], texts.of_rows(rows), pairs_of_rows(pairs, rows)
            )
            for attached, rows in zip(self._attached, groups, strict=False)
        ]
        return torch.cat(parts)[torch.cat(groups).argsort()]

    def _velocity(
        self,
        attached: Attached,
        noisy: Tensor,
        times: Tensor,
        texts: Texts,
        pairs: KeysValues | TimedKeysValues,
    ) -> Tensor:
        """Of rows whose texts are as long."""
        base, options = self._own.model, {**_OPTIONS}
        attached.put(options, pairs, noisy, times)
        noisy = noisy.unflatten(1, (-1, *frames_of(base)))
        context, more = self._conditions(texts, noisy)
        with in_training():
            out = base.diffusion_model(noisy, times, context=context, transformer_options=options, **more)
        return out.float().flatten(1, -3)

    def _conditions(self, texts: Texts, noisy: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The text, and all else that this model reads, by the host: of Flux pooled text and guidance."""
        rows, device = noisy.shape[0], noisy.device
        pooled = None if texts.pooled is None else texts.pooled.to(device)
        given = {"cross_attn": texts.context.to(device), "pooled_output": pooled}
        guided = self._guided(self._guidance)
        found = self._own.model.extra_conds(device=device, noise=noisy, **given, **guided)
        made = {
            name: _on(cond.process_cond(batch_size=rows, device=device, area=None).cond, noisy)
            for name, cond in found.items()
        }
        return made.pop("c_crossattn"), made

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


def _on(value: Any, like: Tensor) -> Any:
    """A tensor on like's device, in its dtype; numbers stay as they are."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)
