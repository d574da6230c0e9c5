"""The node that does it all: a picture in front of the sampler."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import host
from ..host import face_models, folders
from ..ipadapter_core.errors import MismatchError, MissingFileError, WrongEncoderError
from ..ipadapter_core.prompt import ImagePrompt
from ..ipadapter_core.spec import Feature, Identity, Variant
from ..model_files.choice import Missing, ResolvedFiles, resolve
from ..model_files.released import Intent
from . import names
from .faces import face_model_for, find_faces
from .inputs import CATEGORY, Input, adapter_file_input, image_input, model_input, weight_input
from .loaders import AdapterFileNode

AUTO = "auto (fits the model)"
KEPT = 4  # prompts of one model
# In names of files for special uses, which stand behind the others in the menu.
_SPECIAL = ("face", "portrait", "instantid", "composition")


@dataclass(frozen=True)
class Preset:
    """intents: what auto looks for, the first that is there."""

    weight_type: str
    intents: tuple[Intent, ...]


_WHOLE = (Intent.PLUS, Intent.STANDARD, Intent.BIG_ENCODER, Intent.LIGHT, Intent.ANIME)
_FACE = (Intent.PLUS_FACE, Intent.FULL_FACE, Intent.FACE_ID_PLUS, Intent.FACE_ID, Intent.PORTRAIT)
PRESETS = {
    "all": Preset("linear", _WHOLE),
    "style": Preset("style transfer", _WHOLE),
    "composition": Preset("composition", _WHOLE),
    "face": Preset("linear", _FACE),
}


class ImagePromptNode(AdapterFileNode):
    # FaceID adapters need none, and auto finds one; looked at where it is read
    KINDS = {"clip_vision": lambda value, name: value}
    TITLE = "Image Prompt"
    DESCRIPTION = (
        "A picture as a prompt (IP-Adapter, IPAdapter): goes between the checkpoint loader and the sampler. "
        "For masks, several images or timing use Load Adapter, Encode Image and Apply."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "ipadapter",
        "ip-adapter",
        "IPAdapter",
        "image prompt",
        "reference image",
        "style transfer",
        "style",
        "face",
    ]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model, steered by the image; connect it to the sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        preset = (
            "What of the picture steers: all of it, its style only, its composition only (SD1.5, SDXL), or the face in it. "
            "With 'auto', face takes a face adapter."
        )
        return {
            "required": {
                "model": model_input(),
                "image": image_input(),
                "ipadapter_file": adapter_file_input(_menu()),
                "weight": weight_input(default=0.7),
            },
            "optional": {
                "clip_vision": _encoder_input(),
                "preset": ([*PRESETS], {"default": "all", "tooltip": preset}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, ipadapter_file: Any = None) -> bool | str:
        return ipadapter_file == AUTO or names.problem(names.adapter_path, ipadapter_file)

    @classmethod
    def IS_CHANGED(cls, ipadapter_file: Any = None, **_: Any) -> str:
        return folders.goal_stamp(None) if ipadapter_file == AUTO else names.adapter_stamp(ipadapter_file)

    def apply(
        self,
        model: Any,
        clip_vision: Any = None,
        image: Tensor | None = None,
        ipadapter_file: str = AUTO,
        weight: float = 0.7,
        preset: str = "all",
        node_id: str | None = None,
    ):
        if image is None:
            raise MismatchError("there is no image. Connect one, from Load Image for example.")
        wanted = PRESETS[preset]
        files = _files(ipadapter_file, model, wanted.intents)
        prompt, taken = _first_that_fits(files, model, clip_vision, image)
        steered = host.apply_prompt(model, prompt, weight, weight_type=wanted.weight_type)
        host.show_status(node_id, f"{prompt.adapter.name}\n{host.summary(model, steered)}")
        if not weight:
            return (steered,)
        separate = host.lora_file(taken.lora) if taken.lora else None
        return (host.ensure_lora(steered, prompt.adapter, separate=separate),)


@dataclass(frozen=True)
class Files:
    """Paths of an adapter and what belongs with it. encoder: None where it is to be found. lora: where it has its own."""

    adapter: str
    variant: Variant | None
    encoder: str | None = None
    lora: str | None = None


def _menu() -> list[str]:
    """auto first, adapters for faces and composition last."""
    found = folders.adapter_files()
    return [AUTO, *sorted(found, key=lambda name: any(word in name.lower() for word in _SPECIAL))]


def _encoder_input() -> Input:
    tip = (
        "The encoder this adapter was trained with, from CLIPVisionLoader: ViT-H for most. Without one, the installed one "
        "that fits is taken."
    )
    return ("CLIP_VISION", {"tooltip": tip})


def _files(name: str, model: Any, intents: Sequence[Intent]) -> Iterator[Files]:
    """The file of this name; of auto those that serve an intent on the model's family, the first intent first."""
    if name != AUTO:
        path = names.adapter_path(name)
        yield Files(path, folders.adapter_variant(path))
        return
    index, family = folders.model_index(), host.base_family(model)
    entries, faces = index.scan(folders.model_folders()), face_models.installed()
    found = [resolve(entries, family, intent, index.sha256, faces) for intent in intents]
    ready = [each for each in found if isinstance(each, ResolvedFiles)]
    if not ready:
        missing = [each for each in found if isinstance(each, Missing)]
        raise MissingFileError(next((each.text for each in missing if each.files), missing[0].text))
    for each in ready:
        encoder, lora = (part and str(part.path) for part in (each.encoder, each.lora))
        yield Files(str(each.adapter.path), Variant(each.variant), encoder, lora)


def _first_that_fits(
    files: Iterator[Files], model: Any, clip_vision: Any, image: Tensor
) -> tuple[ImagePrompt, Files]:
    """The prompt of the first adapter that reads the connected encoder, and its files. Raises as the first one does."""
    refused: WrongEncoderError | None = None
    for each in files:
        try:
            prompt = _REMEMBERED.prompt(each, model, clip_vision, image)
        except WrongEncoderError as error:
            refused = refused or error
        else:
            return prompt, each
    assert refused is not None
    raise refused


class Remembered:
    """The last prompts of each base model, for as long as it is there: another weight encodes nothing again."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[Any, dict[Hashable, ImagePrompt]] = weakref.WeakKeyDictionary()

    def prompt(self, files: Files, model: Any, clip_vision: Any, image: Tensor) -> ImagePrompt:
        stamp = folders.file_stamp(files.adapter, files.encoder)
        key = (files, stamp, _same_object(clip_vision), _digest(image))
        known = self._of.setdefault(model.model, {})
        prompt = known.pop(key, None) or _encoded(files, model, clip_vision, image)
        known[key] = prompt
        while len(known) > KEPT:
            known.pop(next(iter(known)))
        return prompt


_REMEMBERED = Remembered()


def _same_object(value: Any) -> Hashable:
    """Equal for one object only, which it does not keep."""
    try:
        return None if value is None else weakref.ref(value)
    except TypeError:
        return object()


def _digest(image: Tensor) -> bytes:
    values = image.detach().cpu().contiguous()
    return hashlib.blake2b(
        values.numpy().data, digest_size=16, key=str(tuple(values.shape)).encode()
    ).digest()


def _encoded(files: Files, model: Any, clip_vision: Any, image: Tensor) -> ImagePrompt:
    ipadapter = host.load_adapter(files.adapter, files.variant)
    host.check_model(model, ipadapter)
    faceless = ipadapter.spec.identity is Identity.NONE
    if clip_vision is None and ipadapter.spec.feature is not Feature.NONE:
        clip_vision = host.load_clip_vision(files.encoder or folders.encoder_for(ipadapter.spec))
    with folders.suggest_encoder(ipadapter.spec):
        if faceless:
            return host.encode_prompt(ipadapter, clip_vision, host.Reference(image))
        faces, _ = find_faces(image, face_model_for(ipadapter.spec))
        return host.encode_faces(ipadapter, clip_vision, faces)
