"""Copies of the de-facto pack's nodes under other ids: ComfyUI_IPAdapter_plus_V2's, with V2 behind each, and those of
ComfyUI-Kolors-MZ."""

from __future__ import annotations

from typing import Any

from ...host import face_models
from . import apply, embeds, encoder, loaders, pictures, regions, schedules, tiled
from .inputs import Compatible

_LAYERS = tuple(f"layer{n}" for n in range(12))
_SECOND_GENERATION = (apply, tiled, loaders, encoder, embeds, pictures, regions, schedules)
# Of the second generation of the de-facto pack, which had its first beside it.
_NOT_COPIED = ("IPAdapterBatchEmbeds", "InsightFaceLoader", "PrepImageForInsightFace")


def _copy(node: type, title: str, **more: Any) -> type:
    return type(node.__name__, (node,), {"TITLE": title, "__module__": __name__, **more})


class KolorsFaceLoader(Compatible):
    """Its face model is fixed."""

    TITLE = "IPAdapterInsightFaceLoader(kolors) - Legacy"
    DESCRIPTION = loaders.InsightFaceLoader.DESCRIPTION
    RETURN_TYPES = ("INSIGHTFACE",)
    FUNCTION = "load_insightface"
    MODEL = "antelopev2"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"provider": (loaders.InsightFaceLoader.PROVIDERS,)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> str:
        return face_models.stamp(cls.MODEL)

    def load_insightface(self, provider: str):
        return (loaders.load_faces(provider, self.MODEL),)


class LayerWeightsSlider(Compatible):
    """Writes the text that the Mad Scientist node reads."""

    TITLE = "IPAdapter Layer Weights Slider"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("layer_weights",)
    FUNCTION = "ipa_layer_weights_slider"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        slider = ("FLOAT", {"default": 0, "min": -1, "max": 1, "step": 0.01, "display": "slider"})
        times = ("FLOAT", {"default": 1, "min": 0, "max": 999, "step": 0.01})
        return {"required": {**dict.fromkeys(_LAYERS, slider), "multiplier": times}, "optional": {}}

    def ipa_layer_weights_slider(self, multiplier: float, **layers: float):
        return (", ".join(f"{n}:{layers[name] * multiplier}" for n, name in enumerate(_LAYERS)),)


CLASSES: dict[str, type] = {
    f"{node_id}V2": _copy(node, f"{node.TITLE} V2")
    for module in _SECOND_GENERATION
    for node_id, node in module.CLASSES.items()
    if node_id not in _NOT_COPIED
} | {
    "IPAdapterLayerWeightsSlider": LayerWeightsSlider,
    "MZ_IPAdapterModelLoaderKolors": _copy(loaders.ModelLoader, "IPAdapterModelLoader(kolors) - Legacy"),
    "MZ_IPAdapterAdvancedKolors": _copy(apply.AdvancedNode, "IPAdapterAdvanced(kolors) - Legacy"),
    "MZ_IPAdapterFaceID": _copy(apply.FaceIDNode, "IPAdapterFaceID(kolors) - Legacy"),
    "MZ_IPAdapterInsightFaceLoader": KolorsFaceLoader,
}
