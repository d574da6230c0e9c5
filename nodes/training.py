"""Nodes that train adapters and write them to files."""

from __future__ import annotations

import time
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..host import folders
from ..ipadapter_core.checkpoint import Checkpoint
from ..ipadapter_core.faces.analysis import FaceAnalysis
from ..ipadapter_core.pictures.sheets import as_tensor
from ..ipadapter_core.training.config import (
    HELP,
    KINDS,
    LORA_RANK,
    Latents,
    Optimizer,
    Precision,
    Schedule,
    Timesteps,
    TrainingConfig,
    UnetDtype,
    VaeDtype,
)
from ..ipadapter_core.training.export import SUFFIXES, save_adapter
from ..ipadapter_core.values import refuse_strip
from ..ipadapter_core.variant import Variant
from ..training.callbacks import Callback, CallbackList, Step
from ..training.loop import Output
from ..training.losses import Losses
from ..training.pictures import from_tensors
from ..training.session import Setup, prepare, sizes_of
from . import names
from .entry import Node
from .faces import face_model_input
from .inputs import TRAINING, choice_input, ipadapter_input, lines_of

LORA = (
    "faceid only: rank of the LoRA that is trained with it, on all attention; 0 for none. 128 as published."
)
PREVIEW_SECONDS, PREVIEW_SIDE = 2.0, 640
MODEL = (
    "The model that the adapter is for: SD1.5, SDXL, Flux.1, Chroma, SD3.5, Qwen-Image, Z-Image or Lumina 2. It is not "
    "changed."
)
ENCODER = (
    "The image encoder that the adapter will read: ViT-H as a rule, ViT-L/14 for xlabs, SigLIP for instantx."
)
REFERENCES = "Image prompts of the images, in their order, where they are other pictures: faces, styles."
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class ImagePromptTrainNode(Node):
    TITLE = "Image Prompt: Train"
    DESCRIPTION = (
        "Trains an adapter for the connected model on pictures with captions, as the IP-Adapter paper does. Only the "
        "adapter learns. Cancel saves first; queue again to go on."
    )
    CATEGORY = TRAINING
    SEARCH_ALIASES = ["train ipadapter", "train ip-adapter", "finetune adapter", "image prompt training"]
    RETURN_TYPES = ("IPADAPTER", "IMAGE", "STRING")
    RETURN_NAMES = ("ipadapter", "loss_curve", "file")
    OUTPUT_TOOLTIPS = (
        "The trained adapter, for Encode Image.",
        "The losses and their running mean.",
        "The adapter file in the output folder.",
    )
    FUNCTION = "train"
    # pictures of different sizes come as a list
    INPUT_IS_LIST = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        captions = (
            "One caption a line, in the order of the pictures; one for all; or none. Or a list of texts."
        )
        name = "Folder in the output folder, under image_prompt_training, for adapters, losses and what going on needs."
        kind = (
            "base: 4 tokens from the global embedding. plus: 16 tokens from the grid, closer to the picture. full: one "
            "for each token of the encoder. faceid: 4 of the largest face. For Flux.1: xlabs, 4 tokens for the double "
            "blocks, or instantx, 128 for all. For SD3.5: instantx, 64 that follow from the timestep. For Qwen-Image, "
            "Z-Image and Lumina 2: base or plus, an experiment."
        )
        resume = "Go on where the last run under this name stopped; off, or after a change of settings, choose another name."
        return {
            "required": {
                "model": (
                    "MODEL",
                    {"tooltip": MODEL},
                ),
                "vae": ("VAE", {"tooltip": "Its VAE."}),
                "clip": ("CLIP", {"tooltip": "Its text encoder."}),
                "clip_vision": (
                    "CLIP_VISION",
                    {"tooltip": ENCODER},
                ),
                "images": (
                    "IMAGE",
                    {"tooltip": "What to learn from: a batch, or a list of pictures of any sizes."},
                ),
                "captions": ("STRING", {"multiline": True, "default": "", "tooltip": captions}),
                "kind": ([each.value for each in KINDS], {"default": "base", "tooltip": kind}),
                "steps": _whole("steps", 1, 10_000_000, "Steps of training in all."),
                "batch_size": _whole("batch_size", 1, 1024, "Pictures in one batch."),
                "learning_rate": _number("learning_rate", 0.0, 1.0, "1e-4 in the paper.", 1e-6),
                "size": (
                    "INT",
                    {
                        "default": 512,
                        "min": 64,
                        "max": 2048,
                        "step": 64,
                        "tooltip": "Side in pixels; 1024 for SDXL, Flux.1 and SD3.5.",
                    },
                ),
                "seed": _whole("seed", 0, 0xFFFFFFFFFFFF, "Of all that is drawn: noise, timesteps, order."),
                "name": ("STRING", {"default": "adapter", "tooltip": name}),
                "resume": ("BOOLEAN", {"default": True, "tooltip": resume}),
            },
            "optional": {
                "start_from": ipadapter_input(),
                "save_every": (
                    "INT",
                    {
                        "default": 500,
                        "min": 0,
                        "max": 1_000_000,
                        "tooltip": "Steps between savings; 0: at the end only.",
                    },
                ),
                "buckets": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Train pictures in their own aspect, not the square."},
                ),
                "accumulation": _whole("accumulation", 1, 1024, "Batches for one step."),
                "precision": choice_input(
                    Precision,
                    Precision.FULL,
                    "Mixed precision; fp16 is lighter and as good, its loss is scaled.",
                ),
                "checkpointing": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Compute activations twice to save memory."},
                ),
                "schedule": choice_input(Schedule, Schedule.CONSTANT, "The learning rate after the warm-up."),
                "warmup": _whole("warmup", 0, 1_000_000, "Steps in which the learning rate rises."),
                "weight_decay": _number("weight_decay", 0.0, 1.0, "0.01 in the paper."),
                "drop_text": _number(
                    "drop_text", 0.0, 1.0, "How often the caption alone is left out; 0.05 in the paper."
                ),
                "drop_image": _number("drop_image", 0.0, 1.0, "How often the image alone is left out."),
                "drop_both": _number("drop_both", 0.0, 1.0, "How often both are left out. CFG needs it."),
                "noise_offset": _number(
                    "noise_offset", 0.0, 1.0, "A random shift of each channel, for dark and bright."
                ),
                "ema": _number(
                    "ema", 0.0, 1.0, "Decay of averaged weights, saved beside the others; 0 for none.", 1e-5
                ),
                "unet": choice_input(
                    UnetDtype, UnetDtype.AUTO, "What the model's weights are held in; auto: as it is loaded."
                ),
                "references": ("IMAGE", {"tooltip": REFERENCES}),
                "face_model": face_model_input(),
                "optimizer": choice_input(Optimizer, Optimizer.ADAMW, _tip("optimizer")),
                "projection_rate": _number("projection_rate", 0.0, 1.0, _tip("projection_rate"), 1e-6),
                "min_snr": _number("min_snr", 0.0, 100.0, _tip("min_snr"), 0.1),
                "flip": ("BOOLEAN", {"default": False, "tooltip": _tip("flip")}),
                "crops": _whole("crops", 1, 64, _tip("crops")),
                "latents": choice_input(Latents, Latents.MODE, _tip("latents")),
                "vae_dtype": choice_input(VaeDtype, VaeDtype.AUTO, _tip("vae")),
                "lora_rank": (
                    "INT",
                    {"default": LORA_RANK, "min": 0, "max": 1024, "tooltip": LORA},
                ),
                "tokens": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 1024,
                        "tooltip": "Image tokens of a picture; 0: as many as adapters of this kind have.",
                    },
                ),
                "timesteps": choice_input(Timesteps, Timesteps.AUTO, _tip("timesteps")),
                "logit_mean": _number("logit_mean", -10.0, 10.0, _tip("logit_mean"), 0.01),
                "logit_std": _number("logit_std", 0.0, 10.0, _tip("logit_std"), 0.01),
                "guidance": _number("guidance", 0.0, 100.0, _tip("guidance"), 0.1),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def train(
        self,
        model: list[Any],
        vae: list[Any],
        clip: list[Any],
        clip_vision: list[Any],
        images: list[Tensor],
        captions: list[str],
        size: list[int],
        name: list[str],
        resume: list[bool],
        save_every: Sequence[int] = (500,),
        buckets: Sequence[bool] = (False,),
        start_from: Sequence[Any] = (None,),
        references: Sequence[Tensor] = (),
        face_model: Sequence[str] = ("",),
        vae_dtype: Sequence[str] = (VaeDtype.AUTO,),
        lora_rank: Sequence[int] = (LORA_RANK,),
        tokens: Sequence[int] = (0,),
        node_id: Sequence[str | None] = (None,),
        **settings: list[Any],
    ):
        for name_of, batches in (("images", images), ("references", references)):
            for batch in batches:
                refuse_strip(batch, name_of)
        values = {key: value[0] for key, value in settings.items()}
        lora = {"lora_rank": lora_rank[0]} if values.get("kind") == Variant.FACEID.value else {}
        own = {"vae": vae_dtype[0], "tokens": tokens[0] or None}
        config = TrainingConfig.from_dict({**values, **own, **lora})
        faces = None
        if config.kind is Variant.FACEID:
            faces = FaceAnalysis.open(names.face_model_path(face_model[0]))
        with host.gradients():
            base = host.training_base(model[0], vae[0], clip[0], clip_vision[0], faces=faces)
            output = Output(folders.training_folder(name[0]), Path(name[0]).name, save_every[0])
            start = None if start_from[0] is None else as_checkpoint(host.adapter_of(start_from[0]))
            pictures = from_tensors(images, lines_of(captions), references)
            sizes = sizes_of(size[0], buckets[0])
            encoded: dict[str, Any] = {}
            trainer = prepare(config, base, pictures, Setup(sizes, output, encoded, start=start))
            resumed = trainer.resume() if resume[0] else 0
            losses = Losses(output.folder, resumed)
            status = _Status(node_id[0], encoded, len(pictures), resumed)
            path = trainer.run(CallbackList(losses, _Progress(config.steps, losses, status)))
            curve = as_tensor(losses.curve.image())
        return host.load_adapter(path), curve, str(path)


class _Progress(Callback):
    """The host's progress bar with the loss curve as its preview, a line on the node, and its Cancel button."""

    def __init__(self, steps: int, losses: Losses, status: _Status):
        self.bar, self.losses, self.status = host.progress_bar(steps), losses, status
        self.shown = 0.0

    def on_step_end(self, step: Step) -> None:
        preview = None
        if time.monotonic() - self.shown > PREVIEW_SECONDS:
            preview = ("JPEG", self.losses.curve.image((6, 4)), PREVIEW_SIDE)
            self.status.show(step, self.losses.mean)
            self.shown = time.monotonic()
        self.bar.update_absolute(step.number, step.steps, preview)
        host.stop_if_cancelled()


class _Status:
    """The line on the node. encoded: the cache, which fills in the first pass over so many pictures. done: steps before."""

    def __init__(self, node_id: str | None, encoded: Sized, pictures: int, done: int):
        self.node_id, self.encoded, self.pictures, self.done = node_id, encoded, pictures, done
        self.start = time.monotonic()

    def show(self, step: Step, loss: float) -> None:
        host.show_status(self.node_id, self.line(step, loss, time.monotonic() - self.start))

    def line(self, step: Step, loss: float, seconds: float) -> str:
        left = seconds / max(1, step.number - self.done) * (step.steps - step.number)
        time_left = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        parts = [f"step {step.number} of {step.steps}, loss {loss:.4f}, {time_left} left"]
        if len(self.encoded) < self.pictures:
            parts.append(f"caching pictures {len(self.encoded)}/{self.pictures}")
        return "; ".join(parts)


class ImagePromptExportNode(Node):
    TITLE = "Image Prompt: Export"
    DESCRIPTION = "Writes an adapter to models/ipadapter in the released layout, which diffusers and other packs load too."
    CATEGORY = TRAINING
    SEARCH_ALIASES = ["save ipadapter", "convert ipadapter", "export adapter"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    OUTPUT_TOOLTIPS = ("The file that was written.",)
    OUTPUT_NODE = True
    FUNCTION = "export"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        name = "File name in models/ipadapter. A file of that name is not overwritten: a number is added."
        layout = ".safetensors: flat keys, what most load. .bin: nested, as the paper's authors publish."
        return {
            "required": {
                "ipadapter": ipadapter_input(),
                "name": ("STRING", {"default": "my-adapter", "tooltip": name}),
                "layout": (list(SUFFIXES), {"default": SUFFIXES[0], "tooltip": layout}),
                "precision": (
                    list(DTYPES),
                    {"default": "fp16", "tooltip": "fp16 is what adapters are published in."},
                ),
            }
        }

    def export(self, ipadapter: Any, name: str, layout: str, precision: str):
        path = folders.new_adapter_path(name, layout)
        save_adapter(as_checkpoint(host.adapter_of(ipadapter)), path, dtype=DTYPES[precision])
        return {"ui": {"text": [f"saved {path}"]}, "result": (str(path),)}


def as_checkpoint(adapter: host.HostAdapter) -> Checkpoint:
    """The adapter's tensors by role."""
    return Checkpoint(adapter.name, adapter["image_proj"], adapter["ip_adapter"])


def _tip(name: str) -> str:
    """The command's line on a setting."""
    return f"{HELP[name][0].upper()}{HELP[name][1:]}."


def _default(name: str) -> Any:
    return TrainingConfig().to_dict()[name]


def _whole(name: str, least: int, most: int, tooltip: str) -> tuple[Any, ...]:
    return ("INT", {"default": _default(name), "min": least, "max": most, "tooltip": tooltip})


def _number(name: str, least: float, most: float, tooltip: str, step: float = 0.001) -> tuple[Any, ...]:
    return (
        "FLOAT",
        {
            "default": _default(name),
            "min": least,
            "max": most,
            "step": step,
            "round": False,
            "tooltip": tooltip,
        },
    )
