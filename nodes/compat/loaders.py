"""Loaders of the older packs: unified loaders by preset, adapters by file, and face models."""

from __future__ import annotations

import logging
from typing import Any

from ... import host
from ...host import face_models, folders
from ...ipadapter_core import values
from ...ipadapter_core.errors import ImagePromptError
from ...ipadapter_core.faces.analysis import FaceAnalysis
from ...ipadapter_core.faces.runtime import available_providers, require
from ...ipadapter_core.faces.sessions import PROVIDERS
from ...ipadapter_core.spec import Variant
from ...model_files.choice import ResolvedFiles
from ...model_files.index import Entry
from .. import names
from ..faces import USUAL_MODEL
from .inputs import Compatible
from .insight import InsightFace
from .presets import files_of, preset_named
from .values import ADAPTER, ENCODER, FACES, Part, adapter_of, held, pipeline

log = logging.getLogger(__name__)
Input = tuple[Any, ...]


class UnifiedLoader(Compatible):
    TITLE = "IPAdapter Unified Loader"
    DESCRIPTION = "Finds adapter and encoder of a preset. New workflows: Image Prompt: Auto Loader."
    RETURN_TYPES = ("MODEL", "IPADAPTER")
    RETURN_NAMES: tuple[str, ...] = ("model", "ipadapter")
    FUNCTION = "load_models"
    MENU = [
        "LIGHT - SD1.5 only (low strength)",
        "STANDARD (medium strength)",
        "VIT-G (medium strength)",
        "PLUS (high strength)",
        "PLUS FACE (portraits)",
        "FULL FACE - SD1.5 only (portraits stronger)",
    ]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model": ("MODEL",), "preset": (cls.MENU,), **cls.more_inputs()},
            "optional": {"ipadapter": ("IPADAPTER",)},
        }

    @classmethod
    def more_inputs(cls) -> dict[str, Input]:
        return {}

    @classmethod
    def VALIDATE_INPUTS(cls, preset: str | None = None) -> bool | str:
        return names.problem(lambda text: preset_named(text, cls.MENU), preset)

    @classmethod
    def IS_CHANGED(cls, preset: str | None = None, **_: Any) -> str:
        """Of all files that may serve the preset, the face model's too."""
        try:
            known = preset_named(preset, cls.MENU) if preset else None
        except ImagePromptError:
            return "unknown"
        goal = folders.goal_stamp(known.intent if known else None)
        return goal + (face_models.stamp(USUAL_MODEL) if known is None or known.faces else "")

    def load_models(
        self,
        model: Any,
        preset: str,
        lora_strength: float = 0.0,
        provider: str = "CPU",
        ipadapter: Any = None,
    ):
        """The model, with the LoRA of a FaceID preset, and a new pipeline; parts of a connected one are used again."""
        known = preset_named(preset, self.MENU)
        files = files_of(known, model, lora_strength)
        log.info("Image Prompt: preset '%s': %s.", preset, files.reason)
        adapter = _adapter_part(files, ipadapter)
        faces = _face_part(provider, ipadapter) if known.faces else None
        if known.loras:
            separate = host.lora_file(files.lora.path) if files.lora and lora_strength else None
            model = host.ensure_lora(model, adapter["model"], lora_strength, separate)
        return (model, pipeline(adapter, _encoder_part(files.encoder, ipadapter), faces))


class UnifiedLoaderFaceID(UnifiedLoader):
    TITLE = "IPAdapter Unified Loader FaceID"
    DESCRIPTION = (
        "Finds adapter, encoder, LoRA and face model of a preset. New workflows: Image Prompt: Auto Loader."
    )
    RETURN_NAMES = ("MODEL", "ipadapter")
    MENU = [
        "FACEID",
        "FACEID PLUS - SD1.5 only",
        "FACEID PLUS V2",
        "FACEID PORTRAIT (style transfer)",
        "FACEID PORTRAIT UNNORM - SDXL only (strong)",
    ]

    @classmethod
    def more_inputs(cls) -> dict[str, Input]:
        return {
            "lora_strength": ("FLOAT", {"default": 0.6, "min": 0, "max": 1, "step": 0.01}),
            "provider": (list(PROVIDERS),),
        }


class UnifiedLoaderCommunity(UnifiedLoader):
    TITLE = "IPAdapter Unified Loader Community"
    MENU = ["Composition", "Kolors"]


class ModelLoader(Compatible):
    TITLE = "IPAdapter Model Loader"
    DESCRIPTION = "Loads an adapter file. New workflows: Image Prompt: Load Adapter."
    RETURN_TYPES = ("IPADAPTER",)
    FUNCTION = "load_ipadapter_model"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ipadapter_file": (folders.adapter_files(),)}}

    @classmethod
    def VALIDATE_INPUTS(cls, ipadapter_file: str | None = None) -> bool | str:
        return names.problem(names.adapter_path, ipadapter_file)

    @classmethod
    def IS_CHANGED(cls, ipadapter_file: Any = None) -> str:
        return names.adapter_stamp(ipadapter_file)

    def load_ipadapter_model(self, ipadapter_file: str):
        path = names.adapter_path(ipadapter_file)
        return (host.load_adapter(path, folders.adapter_variant(path)),)


class InsightFaceLoader(Compatible):
    TITLE = "IPAdapter InsightFace Loader"
    DESCRIPTION = (
        "Loads a face model, without the insightface package. New workflows: Image Prompt: Find Faces."
    )
    RETURN_TYPES = ("INSIGHTFACE",)
    FUNCTION = "load_insightface"
    PROVIDERS = ["CPU", "CUDA", "ROCM"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"provider": (cls.PROVIDERS,), "model_name": (["buffalo_l", "antelopev2"],)},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model_name: Any = None) -> bool | str:
        return names.problem(names.face_model_path, model_name)

    @classmethod
    def IS_CHANGED(cls, model_name: Any = USUAL_MODEL, **_: Any) -> str:
        return names.face_model_stamp(model_name)

    def load_insightface(self, provider: str, model_name: str = USUAL_MODEL):
        return (load_faces(provider, model_name),)


class FirstInsightFaceLoader(Compatible):
    TITLE = "Load InsightFace"
    DESCRIPTION = InsightFaceLoader.DESCRIPTION
    RETURN_TYPES = ("INSIGHTFACE",)
    FUNCTION = "load_insight_face"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"provider": (InsightFaceLoader.PROVIDERS,)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> str:
        return face_models.stamp(USUAL_MODEL)

    def load_insight_face(self, provider: str):
        return (load_faces(provider),)


def load_faces(provider: str = "CPU", model_name: str = USUAL_MODEL) -> InsightFace:
    """A face model of the menu; on the CPU, with a warning, where onnxruntime lacks the provider, as insightface does."""
    require()
    provider = values.choice(provider, "provider", PROVIDERS)
    if PROVIDERS[provider] not in available_providers():
        log.warning("Image Prompt: this onnxruntime has no provider '%s'; faces run on the CPU.", provider)
        provider = "CPU"
    return InsightFace(FaceAnalysis.open(names.face_model_path(model_name), provider))


def _adapter_part(files: ResolvedFiles, given: Any) -> Part:
    file = str(files.adapter.path)
    model = held(given, ADAPTER, "file", file)
    model = adapter_of(model) if model is not None else host.load_adapter(file, Variant(files.variant))
    return {"file": file, "model": model}


def _encoder_part(entry: Entry | None, given: Any) -> Part | None:
    if entry is None:
        return None
    file = str(entry.path)
    return {"file": file, "model": held(given, ENCODER, "file", file) or host.load_clip_vision(file)}


def _face_part(provider: str, given: Any) -> Part:
    return {"provider": provider, "model": held(given, FACES, "provider", provider) or load_faces(provider)}


CLASSES = {
    "IPAdapterUnifiedLoader": UnifiedLoader,
    "IPAdapterUnifiedLoaderFaceID": UnifiedLoaderFaceID,
    "IPAdapterUnifiedLoaderCommunity": UnifiedLoaderCommunity,
    "IPAdapterModelLoader": ModelLoader,
    "IPAdapterInsightFaceLoader": InsightFaceLoader,
    "InsightFaceLoader": FirstInsightFaceLoader,
}
