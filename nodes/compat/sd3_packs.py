"""Slickytail's nodes for SD3.5-Large on our core, and those of its copy for Wan, which cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ... import host
from ...ipadapter_core.errors import MismatchError
from ..entry import Check
from .named_files import adapter_part, encoder_part
from .transformer_encoding import encoded, encoded_output
from .transformer_packs import DEVICES, SIGLIP, AdapterLoader, TransformerNode, fraction, loaded, weight_range
from .values import adapter_of, pipeline

_SD3, _WAN = "IP_ADAPTER_SD3_INSTANTX", "IP_ADAPTER_WAN_INSTANTX"


class SD3Loader(AdapterLoader):
    """The encoder is a node of the graph; graphs from before December 2024 name it here."""

    TITLE = "Load IPAdapter SD3 Model"
    REQUIRED = "ipadapter provider"
    OWN = {"provider": (DEVICES,)}
    RETURN_TYPES = (_SD3,)
    RETURN_NAMES = ("ipadapter",)
    FUNCTION = "load_model"

    def load_model(self, ipadapter: str, provider: str = "cuda"):
        return (pipeline(adapter_part(ipadapter)),)


class SD3Node(TransformerNode):
    """What its apply nodes of all ages have in common."""

    TITLE = "Apply IPAdapter SD3 Model"
    REQUIRED = "model ipadapter image_embed weight start_percent end_percent"
    KINDS: ClassVar[Mapping[str, Check]] = {_SD3: loaded}
    OWN = {
        "ipadapter": (_SD3,),
        "image_embed": ("CLIP_VISION_OUTPUT",),
        "weight": weight_range(1.0),
        "start_percent": fraction(0.0, 0.01),
        "end_percent": fraction(1.0, 0.01),
    }
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_ipadapter"


class SD3Apply(SD3Node):
    def apply_ipadapter(
        self,
        model: Any,
        ipadapter: Any,
        image_embed: Any,
        weight: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ):
        prompt = encoded_output(ipadapter, image_embed)
        return (host.apply_prompt(model, prompt, weight, start_percent, end_percent),)


class FirstSD3Apply(SD3Node):
    """Of before December 2024: with the picture itself, and an encoder that the loader named."""

    REQUIRED = "model ipadapter image weight start_percent end_percent"

    def apply_ipadapter(
        self,
        model: Any,
        ipadapter: Any,
        image: Tensor,
        weight: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ):
        adapter = adapter_of(ipadapter)
        encoder = encoder_part(SIGLIP, adapter.spec)
        prompt = encoded(pipeline({"file": None, "model": adapter}, encoder), image)
        return (host.apply_prompt(model, prompt, weight, start_percent, end_percent),)


# --- Wan ---------------------------------------------------------------------------------------------------------

_NO_WAN = (
    "no IP-Adapter for Wan is known: the pack of this node reads the file for SD3.5-Large, which fits no Wan model. Use "
    "ComfyUI's own WanImageToVideo or WanPhantomSubjectToVideo, and take this node out."
)


class WanLoader(SD3Loader):
    TITLE = "Load IPAdapter WAN Model"
    RETURN_TYPES = (_WAN,)

    @classmethod
    def VALIDATE_INPUTS(cls, **given: Any) -> bool | str:
        return _NO_WAN

    def load_model(self, ipadapter: str, provider: str = "cuda"):
        raise MismatchError(_NO_WAN)


class WanApply(SD3Node):
    TITLE = "Apply IPAdapter WAN Model"
    OWN = {**SD3Node.OWN, "ipadapter": (_WAN,)}

    def apply_ipadapter(self, model: Any, ipadapter: Any, image_embed: Any, weight: float, **more: Any):
        raise MismatchError(_NO_WAN)


CLASSES = {
    "IPAdapterSD3Loader": SD3Loader,
    "ApplyIPAdapterSD3": SD3Apply,
    "ImagePromptLegacySD3Apply": FirstSD3Apply,
    "IPAdapterWANLoader": WanLoader,
    "ApplyIPAdapterWAN": WanApply,
}
