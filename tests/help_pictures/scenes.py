"""What each help page's picture shows: a node with sensible values, and what is connected to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Beside:
    """A neighbour. joins: pairs of (the sending node's output, the taking node's input). open: else only its title.

    shown: names of pictures on it, as after a run.
    """

    kind: str
    joins: Sequence[tuple[str, str]]
    values: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False
    shown: Sequence[str] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scene:
    """press: what a user presses to see more. run: queue the graph and wait for this to be drawn."""

    node: str
    before: Sequence[Beside] = ()
    after: Sequence[Beside] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    shown: Sequence[str] = ()
    press: str = ""
    run: str = ""


SD15, SDXL = "v1-5-pruned-emaonly.safetensors", "sd_xl_base_1.0.safetensors"
PLUS = "ip-adapter-plus_sd15.safetensors"
JOIN = ("image_prompt", "image_prompt")
MODEL = ("MODEL", "model")
SAMPLER = Beside("KSampler", [("model", "model")])
APPLY, SAVE = Beside("ImagePromptApply", [JOIN]), Beside("ImagePromptSave", [JOIN])
ADAPTER = Beside("ImagePromptLoader", [("ipadapter", "ipadapter")], {"ipadapter_file": PLUS})
ENCODER = Beside("CLIPVisionLoader", [("CLIP_VISION", "clip_vision")])
ENCODE = Beside("ImagePromptEncode", [JOIN])


def checkpoint(*joins: tuple[str, str], file: str = SD15) -> Beside:
    return Beside("CheckpointLoaderSimple", joins or [MODEL], {"ckpt_name": file})


def picture(name: str, *inputs: str) -> Beside:
    """A Load Image that shows it."""
    joins = [("IMAGE", each) for each in inputs]
    return Beside("LoadImage", joins, {"image": f"{name}.png"}, open=True, size=(210, 300))


def preview(output: str, name: str, size: tuple[int, int] = (250, 280)) -> Beside:
    return Beside("PreviewImage", [(output, "images")], open=True, shown=[name], size=size)


CURVE = "0:0.2, 0.3:1, 0.8:0.4"
BOXES = "box 0,0,0.55,1 soft 0.1; box 0.5,0,0.5,0.62 soft 0.1 stroke 0.18 0.66,0.72 0.86,0.8 weight 0.8"
BARS = {"input_4": 0.2, "input_5": 0.4, "input_7": 0.6, "input_8": 0, "output_0": 1.4, "output_1": 1.6}
SCENES = (
    Scene(
        "ImagePrompt",
        [checkpoint(), picture("first", "image"), ENCODER],
        [SAMPLER],
        {"ipadapter_file": "auto (fits the model)", "weight": 0.7},
    ),
    Scene(
        "ImagePromptApply",
        [checkpoint(), ENCODE],
        [SAMPLER],
        {"weight": 0.8, "end_at": 0.85, "weight_curve": CURVE},
        press=".image-prompt-curve button",
    ),
    Scene(
        "ImagePromptAutoLoader",
        [checkpoint()],
        [SAMPLER, Beside("ImagePromptEncode", [("ipadapter", "ipadapter"), ("clip_vision", "clip_vision")])],
        {"intent": "plus"},
    ),
    Scene(
        "ImagePromptCombine",
        [ENCODE, Beside("ImagePromptEncode", [("image_prompt", "image_prompt_2")])],
        [APPLY],
        {"method": "norm average", "weight": 1, "weight_2": 0.6},
    ),
    Scene(
        "ImagePromptDoctor",
        values={"goal": "plus face"},
        size=(860, 560),
        run=".image-prompt-doctor table",
    ),
    Scene(
        "ImagePromptEncode",
        [ADAPTER, ENCODER, picture("first", "image"), picture("second", "image_2")],
        [APPLY],
        {"image_weights": "1", "weight_2": 0.5},
        shown=["first", "second"],
    ),
    Scene(
        "ImagePromptEncodeFace",
        [ADAPTER, Beside("ImagePromptFaces", [("faces", "faces")]), ENCODER],
        [APPLY, SAVE],
        {"structure_weight": 1},
    ),
    Scene(
        "ImagePromptExport",
        [Beside("ImagePromptTrain", [("ipadapter", "ipadapter")])],
        (),
        {"name": "my-adapter"},
    ),
    Scene(
        "ImagePromptFaces",
        [Beside("LoadImage", [("IMAGE", "image")])],
        [
            Beside("ImagePromptEncodeFace", [("faces", "faces")]),
            Beside("PreviewImage", [("face_images", "images")]),
        ],
        {"face_model": "buffalo_l", "order": "left to right"},
    ),
    Scene(
        "ImagePromptHeatMap",
        [Beside("ImagePromptWatch", [("watch", "watch")]), Beside("VAEDecode", [("IMAGE", "image")])],
        [Beside("SaveImage", [("heat_maps", "images")])],
        size=(330, 520),
        shown=["heat"],
    ),
    Scene(
        "ImagePromptLayerWeights",
        [checkpoint(file=SDXL)],
        [Beside("ImagePromptApply", [("layer_weights", "layer_weights")])],
        BARS,
        size=(336, 300),
        press=".image-prompt-blocks button",
    ),
    Scene(
        "ImagePromptLoad",
        [ADAPTER],
        [APPLY],
        {"prompt_file": "output/image_prompts/my_style_00001.safetensors"},
    ),
    Scene(
        "ImagePromptLoader",
        (),
        [Beside("ImagePromptEncode", [("ipadapter", "ipadapter")])],
        {"ipadapter_file": PLUS},
    ),
    Scene(
        "ImagePromptRegions",
        [
            checkpoint(),
            picture("first", "image_prompt_1"),
            picture("second", "image_prompt_2"),
            ADAPTER,
            ENCODER,
        ],
        [SAMPLER, Beside("ConditioningSetMask", [("mask_1", "mask")])],
        {"width": 1024, "height": 512, "regions": BOXES, "weight": 0.8},
        size=(336, 760),
    ),
    Scene("ImagePromptSave", [ENCODE], (), {"filename_prefix": "image_prompts/my_style"}),
    Scene(
        "ImagePromptScore",
        [Beside("VAEDecode", [("IMAGE", "generated")]), picture("first", "references")],
        [Beside("PreviewAny", [("report", "source")]), Beside("PreviewImage", [("sheet", "images")])],
        {"captions": "an orange star on a purple ground"},
        size=(330, 300),
    ),
    Scene(
        "ImagePromptSheet",
        [
            Beside("VAEDecode", [("IMAGE", "images")]),
            Beside("ImagePromptSweep", [("labels", "labels"), ("columns", "columns")]),
        ],
        [Beside("SaveImage", [("sheet", "images")])],
        size=(336, 300),
        shown=["sheet"],
    ),
    Scene(
        "ImagePromptSweep",
        [checkpoint(), ENCODE, Beside("EmptyLatentImage", [("LATENT", "latent")])],
        [
            Beside("KSampler", [("model", "model"), ("latent", "latent_image")]),
            Beside("ImagePromptSheet", [("labels", "labels"), ("columns", "columns")]),
        ],
        {"weights": "0, 0.25, 0.5, 0.75, 1"},
        size=(330, 300),
    ),
    Scene(
        "ImagePromptTrain",
        [
            checkpoint(MODEL, ("CLIP", "clip"), ("VAE", "vae")),
            ENCODER,
            Beside("LoadImage", [("IMAGE", "images")]),
        ],
        [
            Beside("ImagePromptExport", [("ipadapter", "ipadapter")]),
            Beside("PreviewImage", [("loss_curve", "images")]),
        ],
        {
            "kind": "plus",
            "steps": 20000,
            "batch_size": 8,
            "name": "my-adapter",
            "captions": "a red kite over a hill",
        },
        size=(330, 900),
    ),
    Scene(
        "ImagePromptWatch",
        [Beside("ImagePromptApply", [("model", "model")])],
        [SAMPLER, Beside("ImagePromptHeatMap", [("watch", "watch")])],
    ),
)
