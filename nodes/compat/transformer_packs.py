"""Nodes of the packs for Flux and Chroma: XLabs', Shakker's and TK3R's ids on our core.

Their loaders' menus of devices are read and mean nothing here: the host manages the memory. What these packs do wrong is
right here (docs/older-graphs.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ... import host
from ...host import folders
from ...ipadapter_core import values
from ...ipadapter_core.timing import Timing
from .. import names
from ..entry import Check
from ..inputs import Input
from .arithmetic.block_strengths import CURVES, block_strengths
from .inputs import Compatible, inputs
from .named_files import adapter_and_encoder
from .transformer_encoding import encoded, encoded_mean
from .values import adapter_of

SIGLIP = "google/siglip-so400m-patch14-384"
DEVICES = ["cuda", "cpu", "mps"]
_XLABS, _INSTANTX = "IP_ADAPTER_FLUX", "IP_ADAPTER_FLUX_INSTANTX"


def fraction(default: float, step: float = 0.001) -> Input:
    return ("FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": step})


def weight_range(default: float, low: float = -1.0, high: float = 5.0, step: float = 0.05) -> Input:
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step})


def loaded(value: Any, name: str) -> Any:
    """What a loader gives, with an adapter in it."""
    adapter_of(value)
    return value


class TransformerNode(Compatible):
    """What all of them have in common: their own inputs, and weights that may leave their widget's range."""

    DESCRIPTION = "For graphs made with an older pack for Flux or SD3.5. New graphs: Image Prompt: Apply."
    KINDS: ClassVar[Mapping[str, Check]] = {
        **dict.fromkeys((_XLABS, _INSTANTX), loaded),
        **dict.fromkeys(("ip_scale", "begin_strength", "end_strength"), values.weight),
    }
    FREE = "ipadapter ipadatper clip_vision provider"


# --- loaders -----------------------------------------------------------------------------------------------------


class AdapterLoader(TransformerNode):
    """FILE: the input that names the adapter."""

    FILE = "ipadapter"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs(cls.REQUIRED, "", **{**cls.OWN, cls.FILE: (folders.adapter_files(),)})

    @classmethod
    def VALIDATE_INPUTS(cls, **given: Any) -> bool | str:
        return names.problem(names.adapter_path, given.get(cls.FILE))

    @classmethod
    def IS_CHANGED(cls, **given: Any) -> str:
        return names.adapter_stamp(given.get(cls.FILE))


class FluxLoader(AdapterLoader):
    """Adapter and encoder together."""

    TITLE = "Load IPAdapter Flux Model"
    REQUIRED = "ipadapter clip_vision provider"
    OWN = {"clip_vision": ([SIGLIP],), "provider": (DEVICES,)}
    RETURN_TYPES = (_INSTANTX,)
    RETURN_NAMES = ("ipadapterFlux",)
    FUNCTION = "load_model"

    def load_model(self, ipadapter: str, clip_vision: str = SIGLIP, provider: str = "cuda"):
        return (adapter_and_encoder(ipadapter, clip_vision),)


class FluxLoaderAdvanced(FluxLoader):
    TITLE = "Load IPAdapter Flux Model (Advanced)"
    FUNCTION = "load_model_advanced"

    def load_model_advanced(self, ipadapter: str, clip_vision: str = SIGLIP, provider: str = "cuda"):
        return self.load_model(ipadapter, clip_vision)


class FluxChromaLoader(FluxLoader):
    TITLE = "Load IPAdapter Flux/Chroma Model"


class FluxChromaLoaderAdvanced(FluxLoaderAdvanced):
    TITLE = "Load IPAdapter Flux/Chroma Model Advanced"


class XLabsLoader(AdapterLoader):
    """The name of its first input is misspelled in every version, and so in every graph."""

    TITLE = "Load Flux IPAdatpter"
    REQUIRED, FILE = "ipadatper clip_vision provider", "ipadatper"
    OWN = {"provider": (["CPU", "GPU"],)}
    RETURN_TYPES = (_XLABS,)
    RETURN_NAMES = ("ipadapterFlux",)
    FUNCTION = "loadmodel"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = {cls.FILE: (folders.adapter_files(),), "clip_vision": (folders.menu_of("clip_vision"),)}
        return inputs(cls.REQUIRED, "", **{**cls.OWN, **files})

    def loadmodel(self, ipadatper: str, clip_vision: str, provider: str = "GPU"):
        return (adapter_and_encoder(ipadatper, clip_vision),)


# --- apply -------------------------------------------------------------------------------------------------------


class XLabsApply(TransformerNode):
    TITLE = "Apply Flux IPAdapter"
    REQUIRED = "model ip_adapter_flux image ip_scale"
    OWN = {"ip_adapter_flux": (_XLABS,), "ip_scale": weight_range(0.93, 0.0, 1.0, 0.001)}
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "applymodel"

    @classmethod
    def VALIDATE_INPUTS(cls, ip_scale: Any = None) -> bool:
        return True  # until October 2024 it went from -100 to 100

    def applymodel(self, model: Any, ip_adapter_flux: Any, image: Tensor, ip_scale: float):
        """Of several images each acts with its share."""
        for picture in image.split(1):
            prompt = encoded(ip_adapter_flux, picture)
            model = host.apply_prompt(model, prompt, ip_scale / len(image))
        return (model,)


class XLabsApplyAdvanced(TransformerNode):
    """Strength by block."""

    TITLE = "Apply Advanced Flux IPAdapter"
    REQUIRED = "model ip_adapter_flux image begin_strength end_strength smothing_type"
    OWN = {
        "ip_adapter_flux": (_XLABS,),
        "begin_strength": weight_range(0.0, -100.0, 100.0, 0.01),
        "end_strength": weight_range(1.0, -100.0, 100.0, 0.01),
        "smothing_type": (list(CURVES),),
    }
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "applymodel"

    def applymodel(
        self,
        model: Any,
        ip_adapter_flux: Any,
        image: Tensor,
        begin_strength: float,
        end_strength: float,
        smothing_type: str,
    ):
        """Of several images what the encoder sees in them is averaged."""
        prompt = encoded_mean(ip_adapter_flux, image)
        blocks = len(prompt.adapter.spec.site_widths)
        strengths = block_strengths(smothing_type, begin_strength, end_strength, blocks)
        weights = {f"double {n}": strength for n, strength in enumerate(strengths)}
        return (host.apply_prompt(model, prompt, 1.0, layer_weights=weights),)


class FluxApply(TransformerNode):
    TITLE = "Apply IPAdapter Flux Model"
    REQUIRED = "model ipadapter_flux image weight start_percent end_percent"
    OWN = {
        "ipadapter_flux": (_INSTANTX,),
        "weight": weight_range(1.0),
        "start_percent": fraction(0.0),
        "end_percent": fraction(1.0),
    }
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter_flux"

    def apply_ipadapter_flux(
        self,
        model: Any,
        ipadapter_flux: Any,
        image: Tensor,
        weight: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        offload_preprocessing: bool = True,
    ):
        prompt = encoded(ipadapter_flux, image)
        return (host.apply_prompt(model, prompt, weight, start_percent, end_percent),)


class FluxApplyAdvanced(TransformerNode):
    """Weight by step."""

    TITLE = "Apply IPAdapter Flux Model (Advanced)"
    REQUIRED = "model ipadapter_flux image weight_start weight_end steps start_percent end_percent"
    OWN = {
        **FluxApply.OWN,
        "weight_start": weight_range(0.0),
        "weight_end": weight_range(1.0),
        "steps": ("INT", {"default": 10, "min": 1, "max": 100, "step": 1}),
    }
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter_flux_advanced"

    def apply_ipadapter_flux_advanced(
        self,
        model: Any,
        ipadapter_flux: Any,
        image: Tensor,
        weight_start: float,
        weight_end: float,
        steps: int,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        offload_preprocessing: bool = True,
    ):
        prompt = encoded(ipadapter_flux, image)
        weights = host.weights_for(model, prompt.adapter, 1.0, "linear")
        timing = Timing(start_percent, end_percent, ramp=(weight_start, weight_end, steps))
        return (host.add_prompt(model, prompt, host.ApplySettings(weights, timing)),)


_OFFLOAD: Input = ("BOOLEAN", {"default": True, "label_on": "enabled", "label_off": "disabled"})


class FluxChromaApply(FluxApply):
    TITLE = "Apply IPAdapter Flux/Chroma Model"
    REQUIRED = f"{FluxApply.REQUIRED} offload_preprocessing"
    OWN = {**FluxApply.OWN, "offload_preprocessing": _OFFLOAD}


class FluxChromaApplyAdvanced(FluxApplyAdvanced):
    TITLE = "Apply IPAdapter Flux/Chroma Model Advanced"
    REQUIRED = f"{FluxApplyAdvanced.REQUIRED} offload_preprocessing"
    OWN = {**FluxApplyAdvanced.OWN, "offload_preprocessing": _OFFLOAD}


CLASSES = {
    "LoadFluxIPAdapter": XLabsLoader,
    "ApplyFluxIPAdapter": XLabsApply,
    "ApplyAdvancedFluxIPAdapter": XLabsApplyAdvanced,
    "IPAdapterFluxLoader": FluxLoader,
    "ApplyIPAdapterFlux": FluxApply,
    "IPAdapterFluxLoaderAdvanced": FluxLoaderAdvanced,
    "ApplyIPAdapterFluxAdvanced": FluxApplyAdvanced,
    "IPAdapterFluxChromaLoader": FluxChromaLoader,
    "ApplyIPAdapterFluxChroma": FluxChromaApply,
    "IPAdapterFluxChromaLoaderAdvanced": FluxChromaLoaderAdvanced,
    "ApplyIPAdapterFluxChromaAdvanced": FluxChromaApplyAdvanced,
}
