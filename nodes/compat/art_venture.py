"""ArtVenture's nodes: adapter and encoder by name in one node, on the nodes of the de-facto pack."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...host import folders
from ...ipadapter_core.errors import MismatchError
from .. import names
from .apply import SIMPLE_TYPES, SimpleNode
from .first_generation import SCALINGS, FirstApplyNode, FirstEncodedNode
from .inputs import DECLARED, WEIGHT_TO_3, Compatible
from .named_files import adapter_part, encoder_part
from .values import Part, adapter_of, clip_vision_of, pipeline

_NONE = "None"
_ON = ("BOOLEAN", {"default": True})
_NOISE = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.01})
_MODELS = ("model", "pipeline", "clip_vision")


class PipeNode(Compatible):
    TITLE = "IP Adapter Pipe"
    FREE = "ip_adapter_name clip_name"
    RETURN_TYPES = ("IPADAPTER",)
    RETURN_NAMES: tuple[str, ...] = ("pipeline",)
    FUNCTION = "load_ip_adapter"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "ip_adapter_name": (folders.adapter_files(),),
                "clip_name": (folders.menu_of("clip_vision"),),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, ip_adapter_name: Any = None, clip_name: Any = None) -> bool | str:
        return _problem(ip_adapter_name)

    @classmethod
    def IS_CHANGED(cls, ip_adapter_name: Any = None, **_: Any) -> str:
        return names.adapter_stamp(ip_adapter_name)

    def load_ip_adapter(self, ip_adapter_name: str, clip_name: str):
        return (_loaded(ip_adapter_name, clip_name, None, None),)


def _problem(adapter: Any) -> bool | str:
    return True if adapter == _NONE else names.problem(names.adapter_path, adapter)


def _loaded(adapter: str, encoder: str, given: Any, given_encoder: Any) -> dict[str, Any]:
    """A pipeline of what is connected, else of what is named. Raises MismatchError where neither is."""
    if given is not None:
        part: Part = {"file": None, "model": adapter_of(given)}
    elif adapter != _NONE:
        part = adapter_part(adapter)
    else:
        raise MismatchError(
            "ip_adapter_name is 'None' and ip_adapter_opt is not connected. Give one of them."
        )
    looks = clip_vision_of(given, given_encoder)
    if looks is not None:
        return pipeline(part, {"file": None, "model": looks})
    return pipeline(part, None if encoder == _NONE else encoder_part(encoder, part["model"].spec))


class NamedApply(Compatible):
    """What both ages of its apply node have in common."""

    TITLE = "IP Adapter Apply"
    RETURN_TYPES = ("MODEL", "IPADAPTER", "CLIP_VISION")
    RETURN_NAMES = _MODELS
    FREE = PipeNode.FREE
    FUNCTION = "apply_ip_adapter"

    VALIDATE_INPUTS = PipeNode.VALIDATE_INPUTS
    IS_CHANGED = PipeNode.IS_CHANGED

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        timed = {name: DECLARED[name] for name in ("start_at", "end_at")}
        return {
            "required": {
                "ip_adapter_name": ([_NONE, *folders.adapter_files()],),
                "clip_name": ([_NONE, *folders.menu_of("clip_vision")],),
                "model": ("MODEL",),
                "image": ("IMAGE",),
                "weight": WEIGHT_TO_3,
            },
            "optional": {
                "ip_adapter_opt": ("IPADAPTER",),
                "clip_vision_opt": ("CLIP_VISION",),
                "attn_mask": ("MASK",),
                **timed,
                "weight_type": (list(SIMPLE_TYPES),),
                "enabled": _ON,
            },
        }


class ApplyNode(NamedApply):
    """The widgets of April 2024 and later; those of before are another node, which graphs are retyped to."""

    def apply_ip_adapter(
        self,
        ip_adapter_name: str,
        clip_name: str,
        model: Any,
        image: Tensor,
        weight: float,
        ip_adapter_opt: Any = None,
        clip_vision_opt: Any = None,
        attn_mask: Tensor | None = None,
        start_at: float = 0.0,
        end_at: float = 1.0,
        weight_type: str = "standard",
        enabled: bool = True,
    ):
        if not enabled:
            return model, None, None
        loaded = _loaded(ip_adapter_name, clip_name, ip_adapter_opt, clip_vision_opt)
        steered, _ = SimpleNode().apply_ipadapter(
            model, loaded, image, weight, start_at, end_at, weight_type, attn_mask
        )
        return steered, loaded, clip_vision_of(loaded)


class FirstApply(NamedApply):
    """Of before April 2024: with noise, and without a weight type."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sections = super().INPUT_TYPES()
        sections["required"]["noise"] = _NOISE
        del sections["optional"]["weight_type"]
        return sections

    def apply_ip_adapter(
        self,
        ip_adapter_name: str,
        clip_name: str,
        model: Any,
        image: Tensor,
        weight: float,
        noise: float = 0.0,
        ip_adapter_opt: Any = None,
        clip_vision_opt: Any = None,
        attn_mask: Tensor | None = None,
        start_at: float = 0.0,
        end_at: float = 1.0,
        enabled: bool = True,
    ):
        if not enabled:
            return model, None, None
        loaded = _loaded(ip_adapter_name, clip_name, ip_adapter_opt, clip_vision_opt)
        encoder = clip_vision_of(loaded)
        steered, _, _ = FirstApplyNode().apply_ipadapter(
            loaded, model, weight, encoder, image, noise=noise, attn_mask=attn_mask, start_at=start_at, end_at=end_at
        )  # fmt: skip
        return steered, loaded, encoder


class ApplyEncodedNode(PipeNode):
    TITLE = "IP Adapter Apply Encoded"
    RETURN_TYPES = ("MODEL", "IPADAPTER")
    RETURN_NAMES = RETURN_TYPES
    FUNCTION = "apply_ip_adapter"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        timed = {name: DECLARED[name] for name in ("start_at", "end_at")}
        return {
            "required": {
                "ip_adapter_name": ([_NONE, *folders.adapter_files()],),
                "embeds": ("EMBEDS",),
                "model": ("MODEL",),
                "weight": WEIGHT_TO_3,
                "weight_type": (list(SCALINGS),),
            },
            "optional": {"ip_adapter_opt": ("IPADAPTER",), "attn_mask": ("MASK",), **timed, "enabled": _ON},
        }

    def apply_ip_adapter(
        self,
        ip_adapter_name: str,
        embeds: Tensor,
        model: Any,
        weight: float,
        weight_type: str,
        ip_adapter_opt: Any = None,
        attn_mask: Tensor | None = None,
        start_at: float = 0.0,
        end_at: float = 1.0,
        enabled: bool = True,
    ):
        if not enabled:
            return model, None
        loaded = _loaded(ip_adapter_name, _NONE, ip_adapter_opt, None)
        steered, _, _ = FirstEncodedNode().apply_ipadapter(
            loaded, model, weight, None, weight_type=weight_type, embeds=embeds, attn_mask=attn_mask,
            start_at=start_at, end_at=end_at,
        )  # fmt: skip
        return steered, loaded


CLASSES = {
    "AV_IPAdapterPipe": PipeNode,
    "AV_IPAdapter": ApplyNode,
    "ImagePromptLegacyArtVenture": FirstApply,
    "AV_IPAdapterApplyEncoded": ApplyEncodedNode,
}
