"""Nodes that make image prompts: encode pictures, combine prompts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import host
from ..host import folders
from ..ipadapter_core.combine import Combine, combine
from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.faces.selection import Faces
from ..ipadapter_core.pictures.preprocessing import Fit, Position
from ..ipadapter_core.prompt import Arrange, ImagePrompt
from ..ipadapter_core.spec import Unconditional
from ..ipadapter_core.values import numbers
from .entry import Node
from .inputs import (
    CATEGORY,
    FACES,
    choice_input,
    clip_vision_input,
    encoder_size_input,
    image_input,
    image_prompt_input,
    ipadapter_input,
    weight_input,
)
from .references import gathered, more_image_inputs

MORE_PROMPTS = range(2, 6)
AS_TRAINED = "as trained"  # the fit of the encoder's own processor; what stood for 'no image' in training
NO_IMAGE = {
    "zero features": Unconditional.ZERO_FEATURES,
    "black picture": Unconditional.BLACK_PICTURE,
    "grey picture": Unconditional.ZERO_PIXELS,
    "nothing": Unconditional.NOTHING,
}


class ImagePromptEncodeNode(Node):
    TITLE = "Image Prompt: Encode Image"
    DESCRIPTION = (
        "Turns reference pictures into an image prompt (IPAdapter): encodes them with CLIP vision and projects them to "
        "tokens."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "IPAdapter Encoder",
        "ipadapter encode",
        "encode reference image",
        "prep image for clip vision",
    ]
    RETURN_TYPES = ("IMAGE_PROMPT",)
    RETURN_NAMES = ("image_prompt",)
    OUTPUT_TOOLTIPS = ("The image prompt, for Apply, Combine or Save.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        weights = "Weight of each image, as '1, 0.5, 0.5'. Empty: all 1."
        negative = "What the picture shall move away from: replaces 'no image' on the negative side."
        mask = "The part of the reference to look at: white is seen, black is not. One mask, or one for each image."
        no_image = (
            "What stands for 'no image' on the negative side, where no negative_image is connected. 'as trained': what the "
            "adapter's authors use; nothing at all with InstantX's for Flux.1."
        )
        fit = (
            "The encoder sees a square. 'as trained' is what the encoder's authors do: CLIP crops, SigLIP squashes. Or cut "
            "the rest off, pad to a square, or squash the image."
        )
        return {
            "required": {
                "ipadapter": ipadapter_input(),
                "clip_vision": clip_vision_input(),
                "arrange": choice_input(
                    Arrange,
                    Arrange.TOGETHER,
                    "Several images: all steer every picture, or image 1 steers picture 1 of the batch, and so on.",
                ),
                "fit": ([AS_TRAINED, *(fit.value for fit in Fit)], {"default": AS_TRAINED, "tooltip": fit}),
                "position": choice_input(Position, Position.CENTER, "Which part 'crop' keeps."),
                "image_weights": ("STRING", {"default": "", "tooltip": weights}),
            },
            "optional": {
                "image": image_input(),
                "negative_image": ("IMAGE", {"tooltip": negative}),
                "reference_mask": ("MASK", {"tooltip": mask}),
                "encoder_size": encoder_size_input(),
                "no_image": ([AS_TRAINED, *NO_IMAGE], {"default": AS_TRAINED, "tooltip": no_image}),
                **more_image_inputs(),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, folder: Any = "", **_: Any) -> str:
        return folders.pictures_stamp(folder) if folder else ""

    def encode(
        self,
        ipadapter: Any,
        clip_vision: Any,
        image: Tensor | None = None,
        arrange: str = Arrange.TOGETHER.value,
        fit: str = AS_TRAINED,
        position: str = Position.CENTER.value,
        image_weights: str = "",
        negative_image: Tensor | None = None,
        reference_mask: Tensor | None = None,
        encoder_size: int = 0,
        no_image: str = AS_TRAINED,
        folder: str = "",
        node_id: str | None = None,
        **more: Any,
    ):
        if negative_image is not None and no_image != AS_TRAINED:
            raise SettingError(
                f"negative_image stands in for 'no image', and no_image is '{no_image}'. Set it to '{AS_TRAINED}', or "
                "disconnect negative_image."
            )
        ipadapter = host.adapter_of(ipadapter)
        way = None if fit == AS_TRAINED else Fit(fit), Position(position)
        written = numbers(image_weights, "image_weights")
        pictures = gathered(image, reference_mask, *way, written, more, folder)
        negative = None if negative_image is None else host.Reference(negative_image, *way)
        encoding = host.Encoding(
            Arrange(arrange), pictures.weights, encoder_size, no_image=NO_IMAGE.get(no_image)
        )
        with folders.suggest_encoder(ipadapter.spec):
            prompt = host.encode_prompt(ipadapter, clip_vision, pictures.references, negative, encoding)
        if node_id is None:
            return (prompt,)
        host.show_status(node_id, _summary(prompt))
        seen = host.prepared_squares(clip_vision, ipadapter.spec, pictures.references, encoder_size)
        return {"ui": host.preview(seen), "result": (prompt,)}


class ImagePromptEncodeFaceNode(Node):
    TITLE = "Image Prompt: Encode Face"
    DESCRIPTION = (
        "Turns faces into an image prompt with a FaceID adapter. Apply puts the LoRA inside the adapter's file on the "
        "model by itself."
    )
    CATEGORY = FACES
    SEARCH_ALIASES = ["IPAdapter FaceID", "face id", "face embeds", "portrait", "InstantID"]
    RETURN_TYPES = ("IMAGE_PROMPT",)
    RETURN_NAMES = ("image_prompt",)
    OUTPUT_TOOLTIPS = ("The image prompt, for Apply, Combine or Save.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        arrange = (
            "Several faces: all steer every picture, or face 1 steers picture 1 of the batch, and so on."
        )
        structure = (
            "FaceID Plus v2 and Kolors: weight of the encoder features of the face beside its identity. "
            "More keeps more of the reference's look and pose."
        )
        encoder = "FaceID Plus adapters look at the face too: ViT-H, for Kolors ViT-L/14-336. Others do not need it."
        weights = "Weight of each face, as '1, 0.5, 0.5'. Empty: all 1."
        return {
            "required": {
                "ipadapter": ipadapter_input(),
                "faces": ("FACES", {"tooltip": "Faces of Image Prompt: Find Faces."}),
                "arrange": choice_input(Arrange, Arrange.TOGETHER, arrange),
                "structure_weight": weight_input(structure),
                "image_weights": ("STRING", {"default": "", "tooltip": weights}),
            },
            "optional": {"clip_vision": ("CLIP_VISION", {"tooltip": encoder})},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def encode(
        self,
        ipadapter: Any,
        faces: Faces,
        arrange: str = Arrange.TOGETHER.value,
        structure_weight: float = 1.0,
        image_weights: str = "",
        clip_vision: Any = None,
        node_id: str | None = None,
    ):
        ipadapter, clip_vision = host.adapter_of(ipadapter), host.clip_vision_of(ipadapter, clip_vision)
        encoding = host.Encoding(
            Arrange(arrange), numbers(image_weights, "image_weights"), structure=structure_weight
        )
        with folders.suggest_encoder(ipadapter.spec):
            prompt = host.encode_faces(ipadapter, clip_vision, faces, encoding)
        host.show_status(node_id, _summary(prompt))
        return (prompt,)


def _summary(prompt: ImagePrompt) -> str:
    """One line for the page."""
    count = prompt.note.get("images") or prompt.note.get("faces", "0")
    what = "image" if "images" in prompt.note else "face"
    each = f" for each of {prompt.rows} pictures" if prompt.rows > 1 else ""
    return f"{count} {what}{'' if count == '1' else 's'} encoded, {prompt.cond.shape[1]} tokens{each}"


class ImagePromptCombineNode(Node):
    TITLE = "Image Prompt: Combine"
    DESCRIPTION = (
        "Makes one image prompt of up to five of the same adapter. 'concat' keeps what each one says; "
        "the others are arithmetic on their tokens."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["IPAdapter Combine Embeds", "combine embeds", "mix images", "merge image prompts"]
    RETURN_TYPES = ("IMAGE_PROMPT",)
    RETURN_NAMES = ("image_prompt",)
    OUTPUT_TOOLTIPS = ("The combined prompt, for Apply or Save.",)
    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        method = (
            "concat: all tokens side by side. add, subtract (first minus the others), average: of tokens, weighted. "
            "norm average: average at full token length."
        )
        weights = {f"weight_{n}": weight_input(f"Weight of image_prompt_{n}.") for n in MORE_PROMPTS}
        return {
            "required": {
                "image_prompt": image_prompt_input(),
                "method": choice_input(Combine, Combine.CONCAT, method),
                "weight": weight_input("Weight of image_prompt."),
                **weights,
            },
            "optional": {f"image_prompt_{n}": image_prompt_input(optional=True) for n in MORE_PROMPTS},
        }

    def combine(self, image_prompt: ImagePrompt, method: str, weight: float, **more: Any):
        given = [n for n in MORE_PROMPTS if more.get(f"image_prompt_{n}") is not None]
        prompts = [image_prompt, *(more[f"image_prompt_{n}"] for n in given)]
        weights = [weight, *(more[f"weight_{n}"] for n in given)]
        return (combine(prompts, Combine(method), weights),)
