"""Where values enter a node: its method is called with values that were checked by the types its inputs declare.

By link, or from another pack's Python, anything may come: the host checks menus and ranges of widgets only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from .. import host
from ..ipadapter_core import values
from ..ipadapter_core.errors import MismatchError
from ..ipadapter_core.prompt import ImagePrompt
from .inputs import Input

Check = Callable[[Any, str], Any]
# Numbers whose names contain one of these may leave their widget's range.
_WEIGHTS = ("weight", "boost", "lora_strength")
_RANGE = (("low", "min"), ("high", "max"))


def _model(value: Any, name: str) -> Any:
    return _having(value, name, ("clone", "get_model_object"), "a model (MODEL)")


def _faces(value: Any, name: str) -> Any:
    faces = _having(value, name, ("groups", "embeddings", "crops"), "the faces of Image Prompt: Find Faces")
    if not faces.groups:
        raise MismatchError(f"{name} holds no face. Give Image Prompt: Find Faces a picture.")
    return faces


def _face_model(value: Any, name: str) -> Any:
    return _having(value, name, ("get", "det_model"), "IPAdapter InsightFace Loader")


def _having(value: Any, name: str, attributes: tuple[str, ...], what: str) -> Any:
    if isinstance(value, Mapping) or not all(hasattr(value, each) for each in attributes):
        raise MismatchError(f"{name} is {values.described(value)}; connect {what}.")
    return value


def _image_prompt(value: Any, name: str) -> ImagePrompt:
    if not isinstance(value, ImagePrompt):
        raise MismatchError(f"{name} is {values.described(value)}; connect an image prompt (IMAGE_PROMPT).")
    for tensor in (value.cond, value.uncond, value.value_scale):
        values.require_finite(tensor, name, values.LARGEST_FEATURE)
    return value


def _encoder_output(value: Any, name: str) -> Any:
    """What CLIPVisionEncode gives: tensors by name."""
    try:
        tensors = [value["penultimate_hidden_states"], value["image_embeds"]]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise MismatchError(
            f"{name} is {values.described(value)}; connect CLIPVisionEncode, or leave it unconnected."
        ) from None
    for tensor in tensors:
        values.embeds(tensor, name)
    return value


def _latent(value: Any, name: str) -> Any:
    """What samplers take and give: numbers under 'samples', and more that is the host's."""
    samples = value.get("samples") if isinstance(value, Mapping) else None
    if not isinstance(samples, Tensor) or samples.ndim < 4 or samples.numel() == 0:
        raise MismatchError(
            f"{name} is {values.described(value)}; connect a latent (LATENT) of a picture or several."
        )
    return value


def _connected(value: Any, name: str) -> Any:
    """Checked further where it is read."""
    if value is None:
        raise MismatchError(f"{name} is {values.described(value)}. Connect it.")
    return value


KINDS: dict[str, Check] = {
    "MODEL": _model,
    "IMAGE": values.pictures,
    "MASK": values.masks,
    "EMBEDS": values.embeds,
    "IMAGE_PROMPT": _image_prompt,
    "LAYER_WEIGHTS": values.named_weights,
    "FACES": _faces,
    "LATENT": _latent,
    "INSIGHTFACE": _face_model,
    "CLIP_VISION_OUTPUT": _encoder_output,
    "BOOLEAN": values.switch,
    "STRING": values.text,
    **dict.fromkeys(("IPADAPTER", "CLIP_VISION", "CLIP", "VAE", "CONDITIONING"), _connected),
}


class Node:
    """What all nodes have in common.

    KINDS: checks of the node's own, by input or by type, before the usual ones. LISTS: names of weights that may be
    lists, one number for each picture. FREE: names of menus whose words the node checks itself, such as files.
    """

    KINDS: ClassVar[Mapping[str, Check]] = {}
    LISTS = FREE = FUNCTION = TITLE = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        method = cls.__dict__.get(cls.FUNCTION)
        if method is not None:
            setattr(cls, cls.FUNCTION, _checking(method))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Declarations of inputs by section, as the host reads them."""
        raise NotImplementedError

    @classmethod
    def declared(cls) -> dict[str, Input]:
        """Every input with its declaration, whatever its section."""
        sections: dict[str, dict[str, Input]] = cls.INPUT_TYPES()
        return {**sections.get("required", {}), **sections.get("optional", {})}

    @classmethod
    def check_of(cls, name: str, declared: Input) -> Check:
        kind, options = declared[0], declared[1] if len(declared) > 1 else {}
        own = cls.KINDS.get(name) or (cls.KINDS.get(kind) if isinstance(kind, str) else None)
        if own:
            return own
        if not isinstance(kind, str):
            return values.text if name in cls.FREE.split() else functools.partial(values.choice, words=kind)
        if kind in ("FLOAT", "INT"):
            return values.weights if name in cls.LISTS.split() else _number(kind, name, options)
        return KINDS.get(kind, _connected)


def _number(kind: str, name: str, options: Mapping[str, Any]) -> Check:
    if kind == "FLOAT" and any(word in name for word in _WEIGHTS):
        return values.weight
    check = values.whole if kind == "INT" else values.number
    return functools.partial(check, **{side: options[key] for side, key in _RANGE if key in options})


def _checking(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with its values checked. None stands for the method's default, where it has one."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def entrance(self: Node, *args: Any, **named: Any) -> Any:
        signature.bind(self, *args, **named)
        names = [*signature.parameters][1 : 1 + len(args)]
        given = dict(zip(names, args, strict=True)) | named
        with host.working(self.TITLE or type(self).__name__):
            return method(self, **_checked(self, given, signature.parameters))

    return entrance


def _checked(
    node: Node, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    declared, made = node.declared(), {}
    for name, value in given.items():
        optional = name in parameters and parameters[name].default is not inspect.Parameter.empty
        if value is None and optional:
            continue
        if name not in declared:
            made[name] = value
        elif getattr(node, "INPUT_IS_LIST", False):
            made[name] = _each(node.check_of(name, declared[name]), value, name)
        else:
            made[name] = node.check_of(name, declared[name])(value, name)
    return made


def _each(check: Check, given: Any, name: str) -> list[Any]:
    if not isinstance(given, list | tuple) or not given:
        raise MismatchError(f"{name} is {values.described(given)}; it must hold one value or more.")
    return [check(value, name) for value in given]
