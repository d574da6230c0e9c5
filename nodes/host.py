"""The only module that touches comfy's internals: models, patch slots, devices, CLIP vision."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ..ipadapter_core.adapter import Adapter, KeysValues
from ..ipadapter_core.attention import COND, SiteResidual
from ..ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.masking import feature_size
from ..ipadapter_core.pixels import Fit, Position, pixel_values
from ..ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from ..ipadapter_core.sites import Site, check_fit, unet_sites
from ..ipadapter_core.variants import ENCODERS, AdapterSpec, Feature, Unconditional
from ..ipadapter_core.weighting import SigmaWindow, site_weights

ENCODE_BATCH = 16
CALLBACK_KEY = "image_prompt"


# --- adapter -----------------------------------------------------------------------------------------------------


class HostAdapter:
    """IPADAPTER: an adapter under the host's memory management. On the device only while it computes."""

    def __init__(self, checkpoint: Checkpoint):
        adapter = Adapter(checkpoint, comfy.ops.manual_cast)
        # looked up now, not at import: the host replaces the class at start where memory is dynamic
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher_class(
            adapter, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        adapter.take(checkpoint)
        self.name, self.digest = adapter.name, adapter.digest

    @property
    def spec(self) -> AdapterSpec:
        return self.patcher.model.spec

    def project(self, features: Tensor) -> Tensor:
        with on_device(self.patcher) as device:
            return self.patcher.model.project(features.to(device, torch.float32)).to(mm.intermediate_device())

    def keys_values(self, tokens: Tensor) -> KeysValues:
        with on_device(self.patcher) as device:
            pairs = self.patcher.model.keys_values(tokens.to(device, torch.float32))
            return tuple((k.to("cpu"), v.to("cpu")) for k, v in pairs)


def load_adapter(path: str) -> HostAdapter:
    return HostAdapter(read_checkpoint(path))


@contextmanager
def on_device(patcher: Any) -> Iterator[torch.device]:
    """Load through the host, compute, and give the memory back: sampling needs K'/V', not the adapter."""
    mm.load_models_gpu([patcher])
    try:
        yield patcher.load_device
    finally:
        if patcher.load_device != patcher.offload_device:
            others = [loaded for loaded in mm.current_loaded_models if loaded.model is not patcher]
            mm.free_memory(1e30, patcher.load_device, others)


# --- CLIP vision -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Pictures to encode: image (n, H, W, c) in 0..1, how they meet the square encoder, and the part to look at."""

    image: Tensor
    fit: Fit = Fit.CROP
    position: Position = Position.CENTER
    mask: Tensor | None = None


def encode_prompt(
    adapter: HostAdapter,
    clip_vision: Any,
    reference: Reference,
    negative: Reference | None = None,
    arrange: Arrange = Arrange.TOGETHER,
    image_weights: Sequence[float] = (),
) -> ImagePrompt:
    """Encode, project, and pair with the unconditional tokens, or with those of the negative pictures."""
    spec = adapter.spec
    cond = encode_images(clip_vision, spec, reference)
    uncond = (
        encode_images(clip_vision, spec, negative) if negative else unconditional_features(clip_vision, spec)
    )
    tokens = adapter.project(torch.cat((cond, uncond)))
    note = {
        "images": str(len(cond)),
        "negative images": str(len(uncond) if negative else 0),
        "fit": reference.fit.value,
    }
    return make_prompt(adapter, tokens[: len(cond)], tokens[len(cond) :], arrange, image_weights, note)


def encode_images(clip_vision: Any, spec: AdapterSpec, reference: Reference) -> Tensor:
    """The encoder features that `spec` asks for, fp32, in bounded batches with the host's progress bar."""
    size, mean, std = _preprocessing(clip_vision)
    values = pixel_values(reference.image, size, mean, std, reference.fit, reference.position, reference.mask)
    progress = comfy.utils.ProgressBar(values.shape[0])
    parts: list[Tensor] = []
    for chunk in values.split(ENCODE_BATCH):
        parts.append(_features(clip_vision, spec, chunk))
        progress.update(chunk.shape[0])
    return torch.cat(parts)


def unconditional_features(clip_vision: Any, spec: AdapterSpec) -> Tensor:
    """'No image' as in training: zero features, or features of pixels that are zero after normalisation."""
    if spec.unconditional is Unconditional.ZERO_FEATURES:
        return torch.zeros(1, spec.feature_width)
    size = _preprocessing(clip_vision)[0]
    return _features(clip_vision, spec, torch.zeros(1, 3, size, size))


def _preprocessing(clip_vision: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std of the encoder. Hosts before 2024-11 knew OpenAI's CLIP constants only."""
    mean = getattr(clip_vision, "image_mean", (0.48145466, 0.4578275, 0.40821073))
    std = getattr(clip_vision, "image_std", (0.26862954, 0.26130258, 0.27577711))
    return getattr(clip_vision, "image_size", 224), tuple(mean), tuple(std)


def _features(clip_vision: Any, spec: AdapterSpec, values: Tensor) -> Tensor:
    """Run the encoder as the host's encode_image does, on pixel values of our own preprocessing."""
    mm.load_model_gpu(clip_vision.patcher)
    with torch.no_grad():
        out = clip_vision.model(pixel_values=values.to(clip_vision.load_device), intermediate_output=-2)
    features = out[1] if spec.feature is Feature.PENULTIMATE else out[2]
    features = features.to(mm.intermediate_device(), torch.float32)
    if features.shape[-1] != spec.feature_width:
        raise MismatchError(
            f"this {spec.variant.value} adapter reads {spec.feature.value} of width {spec.feature_width} ({spec.encoder}), "
            f"but the connected CLIP vision model gives width {features.shape[-1]}{_guess(spec, features)}. "
            f"Load {spec.encoder} in CLIPVisionLoader."
        )
    return features


def _guess(spec: AdapterSpec, features: Tensor) -> str:
    name = ENCODERS.get((spec.feature, features.shape[-1]))
    return f" (it looks like {name})" if name else ""


# --- patching ----------------------------------------------------------------------------------------------------


class StepClock:
    """The current sigma as a number: one read from the device per model call, shared by all prompts and sites."""

    def __init__(self) -> None:
        self._last: tuple[Tensor | None, float] = (None, 0.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepClock:
        return self

    def read(self, sigmas: Tensor) -> float:
        last = self._last
        if last[0] is not sigmas:  # the tensor itself is kept, so its identity cannot be reused
            last = self._last = (sigmas, float(sigmas[0]))
        return last[1]


class Residual:
    """A prompt's residual at one site and the window in which it acts."""

    def __init__(self, site: SiteResidual, window: SigmaWindow | None):
        self.site, self.window = site, window

    def acts(self, clock: StepClock, sigmas: Tensor | None) -> bool:
        return self.window is None or sigmas is None or clock.read(sigmas) in self.window


class SitePatch:
    """What stands in one attn2 slot: the attention that was there before, and image prompts added to it.

    `base` is another pack's patch, or None for the host's own attention. Never changed by our nodes: applying
    again builds a new patch. Other packs do `add` to it in place, so every clone of a model gets a twin of its own,
    which shares all tensors: hosts up to 0.13 deep-copy patches, later ones call back.
    """

    def __init__(self, base: Callable[..., Tensor] | None, residuals: tuple[Residual, ...], clock: StepClock):
        self.base, self.residuals, self.clock = base, residuals, clock
        self.callback: list[Callable[..., Tensor]] = []
        self.kwargs: list[dict[str, Any]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> SitePatch:
        return self.twin(base=copy.deepcopy(self.base, memo))

    def twin(self, *more: Residual, base: Callable[..., Tensor] | None = None) -> SitePatch:
        """The same patch as an object of its own, with `more` residuals."""
        twin = SitePatch(base or self.base, (*self.residuals, *more), self.clock)
        twin.callback, twin.kwargs = [*self.callback], [*self.kwargs]
        return twin

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        base = self.base or text_attention
        out = base(q, k, v, extra_options)
        sigmas = extra_options.get("sigmas")
        for residual in self.residuals:
            if residual.acts(self.clock, sigmas):
                chunks = tuple(extra_options.get("cond_or_uncond", (COND,)))
                size = _feature_size(q, extra_options) if residual.site.mask is not None else None
                out = residual.site.add_to(out, q, extra_options["n_heads"], chunks, size)
        return self._with_guests(out, q, k, v, extra_options)

    def add(self, callback: Callable[..., Tensor], **kwargs: Any) -> None:
        """The protocol of the de-facto pack, InstantID and PuLID, which join a patch that is already in the slot."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def _with_guests(
        self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]
    ) -> Tensor:
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            sigma = self.clock.read(extra_options["sigmas"])
            if kwargs.get("sigma_start", float("inf")) >= sigma >= kwargs.get("sigma_end", 0.0):
                out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out

    def to(self, target: Any) -> SitePatch:
        """Called by the host with devices and dtypes; ready-made tensors follow q, so only stale ones are dropped."""
        if isinstance(target, torch.device):
            for residual in self.residuals:
                residual.site.forget(target)
        return self

    def cleanup(self) -> None:
        """Called by hosts after 0.16.4 when sampling ends."""
        for residual in self.residuals:
            residual.site.forget()


@lru_cache(maxsize=8)
def _takes_options(attention: Callable[..., Any]) -> bool:
    parameters = inspect.signature(attention).parameters
    return "transformer_options" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def text_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """The host's own cross-attention, exactly as an unpatched block calls it, with the user's attention choice."""
    attention = host_attention.optimized_attention
    options: dict[str, Any] = {"attn_precision": extra_options.get("attn_precision")}
    if _takes_options(attention):
        options["transformer_options"] = extra_options
    return attention(q, k, v, extra_options["n_heads"], **options)


def _feature_size(q: Tensor, extra_options: Mapping[str, Any]) -> tuple[int, int]:
    shape = extra_options.get("activations_shape")
    if shape is not None and shape[-2] * shape[-1] == q.shape[1]:
        return shape[-2], shape[-1]
    return feature_size(q.shape[1], *extra_options["original_shape"][-2:])


def model_sites(model: Any) -> tuple[Site, ...]:
    return unet_sites(model.get_model_object("diffusion_model"))


def check_model(model: Any, adapter: HostAdapter) -> None:
    """Raise MismatchError unless the adapter belongs to this model's family."""
    check_fit(adapter.spec, adapter.name, model_sites(model))


def apply_prompt(
    model: Any,
    prompt: ImagePrompt,
    weight: float,
    start_at: float = 0.0,
    end_at: float = 1.0,
    weight_type: str = "linear",
    mask: Tensor | None = None,
    layer_weights: Mapping[str, float] | None = None,
) -> Any:
    """A clone of `model` with the prompt added at every site whose weight is not 0. `model` stays as it was."""
    sites = model_sites(model)
    check_fit(prompt.adapter.spec, prompt.adapter.name, sites)
    weights = site_weights(sites, weight, weight_type, layer_weights)
    window = SigmaWindow.of(start_at, end_at, model.get_model_object("model_sampling").percent_to_sigma)
    patched = model.clone()
    if not any(weights):
        return patched
    slots = _attn2_slots(patched)
    clock = _clock_of(slots)
    for site, site_weight, (keys, values) in zip(sites, weights, prompt.keys_values, strict=True):
        if site_weight:
            residual = Residual(SiteResidual(keys, values, prompt.rows, site_weight, mask), window)
            previous = slots.get(site.key, slots.get(site.key[:2]))
            patch = previous if isinstance(previous, SitePatch) else SitePatch(previous, (), clock)
            patched.set_model_attn2_replace(patch.twin(residual), *site.key)
    _keep_branches_apart(patched)
    return patched


def _clock_of(slots: Mapping[Any, Any]) -> StepClock:
    return (
        next((patch.clock for patch in slots.values() if isinstance(patch, SitePatch)), None) or StepClock()
    )


def _attn2_slots(model: Any) -> dict[Any, Any]:
    return model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})


def _keep_branches_apart(model: Any) -> None:
    """Where the host's clone() shares patches, give every clone twins of ours."""
    if not hasattr(model, "add_callback_with_key"):
        return
    from comfy.patcher_extension import CallbacksMP

    if not model.get_callbacks(CallbacksMP.ON_CLONE, CALLBACK_KEY):
        model.add_callback_with_key(CallbacksMP.ON_CLONE, CALLBACK_KEY, _give_twins)


def _give_twins(_: Any, clone: Any) -> None:
    slots = _attn2_slots(clone)
    slots.update({key: patch.twin() for key, patch in slots.items() if isinstance(patch, SitePatch)})
