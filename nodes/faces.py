"""The node that detects faces in pictures with insightface's ONNX files, without its package."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import host
from ..host import face_models
from ..ipadapter_core.faces.analysis import FaceAnalysis
from ..ipadapter_core.faces.detect import LARGEST_FACES, FaceQuery, NoFace, detect_faces
from ..ipadapter_core.faces.selection import Faces, FaceSelection, Grouping, Order, Outliers
from ..ipadapter_core.faces.sessions import PROVIDERS
from ..ipadapter_core.pictures.sheets import as_tensor, labelled_sheet
from ..ipadapter_core.spec import AdapterSpec, Variant
from . import names
from .entry import Node
from .inputs import FACES, Input, choice_input, menu

# of the FaceID adapters of SD1.5 and SDXL
USUAL_MODEL = "buffalo_l"
# of the faces on the node
PREVIEWED, PREVIEWED_IN_ROW, PREVIEW_SIDE = 16, 4, 168


def find_faces(
    image: Tensor, face_model: str = USUAL_MODEL, query: FaceQuery = LARGEST_FACES, provider: str = "CPU"
) -> tuple[Faces, str]:
    """Faces of pictures (n, H, W, c) in 0..1 by a face model of the menu, and the report; by default the largest of each.

    Raises MissingPackageError, MissingFileError for the model, SettingError for the provider, and ImagePromptError where
    a picture has no such face.
    """
    analysis = FaceAnalysis.open(names.face_model_path(face_model), provider)
    return detect_faces(image, analysis, query, host.progress_bar(len(image)).update)


def face_model_for(spec: AdapterSpec) -> str:
    """Name of the face model with which an adapter was trained."""
    return "antelopev2" if spec.variant in (Variant.FACEID_KOLORS, Variant.INSTANTID) else USUAL_MODEL


def face_model_input() -> Input:
    models = menu(list(face_models.by_name()))
    default = USUAL_MODEL if USUAL_MODEL in models else models[0]
    tip = (
        "Folder in models/insightface/models. buffalo_l for FaceID adapters of SD1.5 and SDXL, "
        "antelopev2 for those of Kolors and for InstantID."
    )
    return (models, {"default": default, "tooltip": tip})


class ImagePromptFacesNode(Node):
    TITLE = "Image Prompt: Find Faces"
    DESCRIPTION = (
        "Finds faces in pictures and computes their identity embeddings. Needs onnxruntime and OpenCV and a face model, "
        "not the insightface package."
    )
    CATEGORY = FACES
    SEARCH_ALIASES = [
        "IPAdapter FaceID",
        "IPAdapter InsightFace Loader",
        "insightface",
        "face detection",
        "face crop",
        "face mask",
    ]
    RETURN_TYPES = ("FACES", "IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("faces", "face_images", "face_masks", "report")
    OUTPUT_TOOLTIPS = (
        "The faces chosen, for Encode Face.",
        "Each face, upright. A skipped picture gives a black one, so that they stay in step.",
        "The box of each face, white, at the size of the picture. A skipped picture gives a black one.",
        "What was found in each picture, what was taken, and what was tried.",
    )
    FREE = "face_model"
    FUNCTION = "find"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        index = "Which face of each picture, in this order: 0 is the first, -1 the last."
        count = "How many faces of each picture, from that one on. 0: all."
        score = "How sure the detector must be. Lower it if a face is missed, raise it if something else is taken for one."
        size = (
            "Width and height of face_images. Multiples of 112 are filled by the face, others have a margin."
        )
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to look for faces in."}),
                "face_model": face_model_input(),
                "order": choice_input(Order, Order.LARGEST, "How the faces of a picture are counted."),
                "index": ("INT", {"default": 0, "min": -100, "max": 100, "tooltip": index}),
                "count": ("INT", {"default": 1, "min": 0, "max": 100, "tooltip": count}),
                "combine": choice_input(
                    Grouping,
                    Grouping.SEPARATE,
                    "Several faces: an identity for each, or one that is the average of all (of the same person).",
                ),
                "outliers": choice_input(
                    Outliers,
                    Outliers.REPORT,
                    "A face unlike the others it is averaged with: report it, or also leave it out.",
                ),
                "min_score": (
                    "FLOAT",
                    {"default": 0.5, "min": 0.05, "max": 1.0, "step": 0.05, "tooltip": score},
                ),
                "no_face": choice_input(
                    NoFace,
                    NoFace.ERROR,
                    "A picture without such a face: stop, or go on without it (for video).",
                ),
                "provider": (list(PROVIDERS), {"default": "CPU", "tooltip": "What onnxruntime computes on."}),
                "crop_size": ("INT", {"default": 256, "min": 112, "max": 1024, "step": 16, "tooltip": size}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, face_model: Any = None) -> bool | str:
        return names.problem(names.face_model_path, face_model)

    @classmethod
    def IS_CHANGED(cls, face_model: Any = None, **_: Any) -> str:
        return names.face_model_stamp(face_model)

    def find(
        self,
        image: Tensor,
        face_model: str,
        order: str = Order.LARGEST.value,
        index: int = 0,
        count: int = 1,
        combine: str = Grouping.SEPARATE.value,
        outliers: str = Outliers.REPORT.value,
        min_score: float = 0.5,
        no_face: str = NoFace.ERROR.value,
        provider: str = "CPU",
        crop_size: int = 256,
        node_id: str | None = None,
    ):
        selection = FaceSelection(Order(order), index, count)
        query = FaceQuery(selection, Grouping(combine), Outliers(outliers), NoFace(no_face), min_score)
        faces, report = find_faces(image, face_model, query, provider)
        result = (faces, faces.views(crop_size), faces.masks(), report)
        if node_id is None:
            return result
        host.show_status(node_id, _summary(faces, len(image)))
        return {"ui": host.preview(_labelled(faces)), "result": result}


def _labelled(faces: Faces) -> Tensor:
    """The first faces, aligned, each with its number and how sure the detector is."""
    shown = [face for group in faces.groups for face in group or (None,)][:PREVIEWED]
    labels = [f"{n}: {face.score:.2f}" if face else f"{n}: no face" for n, face in enumerate(shown, 1)]
    views = faces.views(PREVIEW_SIDE)[: len(shown)]
    return as_tensor(labelled_sheet(views, labels, PREVIEWED_IN_ROW, PREVIEW_SIDE))


def _summary(faces: Faces, pictures: int) -> str:
    count = sum(faces.sizes)
    return (
        f"{count} face{'' if count == 1 else 's'} taken from {pictures} picture{'' if pictures == 1 else 's'}"
    )
