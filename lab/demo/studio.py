"""Sampling in the toy world: text, image prompts and a ControlNet through the pack's nodes and the host's KSampler."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...nodes import NODE_CLASS_MAPPINGS
from ..toy import models as toy

host_nodes: Any = importlib.import_module("nodes")  # the host's


def node(node_id: str) -> Any:
    """A fresh node of the pack; call its FUNCTION as the host does."""
    instance = NODE_CLASS_MAPPINGS[node_id]()
    return getattr(instance, instance.FUNCTION)


@dataclass(frozen=True)
class Part:
    """One image prompt: references (n, 96, 96, 3), one for each picture made, λ, and its region (1, H, W) or None."""

    reference: Tensor
    weight: float = 1.0
    mask: Tensor | None = None
    weight_type: str = "linear"


@dataclass(frozen=True)
class Scene:
    """Pictures to make. hint: (1, 96, 96, 3) for the ControlNet. size: (h, w) in latent cells of 8 pixels."""

    parts: tuple[Part, ...] = ()
    text: str = ""
    hint: Tensor | None = None
    size: tuple[int, int] = (toy.LATENT_SIZE, toy.LATENT_SIZE)
    pictures: int = 1
    seed: int = 1


def empty(scene: Scene) -> dict[str, Any]:
    """The LATENT that the scene is sampled from."""
    return {"samples": torch.zeros(scene.pictures, 4, *scene.size)}


@dataclass
class Studio:
    """The toy models, loaded once."""

    model: Any = field(default_factory=toy.load_model)
    vae: Any = field(default_factory=toy.load_vae)
    clip_vision: Any = field(default_factory=toy.load_clip_vision)
    control_net: Any = field(default_factory=toy.load_controlnet)
    # file of the adapter
    adapter: ClassVar[str] = toy.ADAPTER_PATH.name

    def __post_init__(self) -> None:
        comfy.utils.set_progress_bar_enabled(False)
        folder_paths.add_model_folder_path("ipadapter", str(toy.WEIGHTS))
        self.ipadapter = node("ImagePromptLoader")(self.adapter)[0]

    @torch.inference_mode()
    def make(self, scene: Scene) -> Tensor:
        """Pictures (pictures, 8h, 8w, 3) in 0..1."""
        model = self.model
        for part in scene.parts:
            arrange = "one per picture" if len(part.reference) > 1 else "all together"
            prompt = self.encode(part.reference, arrange=arrange)
            model = node("ImagePromptApply")(
                model, prompt, part.weight, weight_type=part.weight_type, mask=part.mask
            )[0]
        return self.sample(model, scene)

    def encode(self, reference: Tensor, **settings: Any) -> Any:
        """An image prompt, by the settings of Image Prompt: Encode Image."""
        return node("ImagePromptEncode")(self.ipadapter, self.clip_vision, reference, **settings)[0]

    @torch.inference_mode()
    def sample(self, model: Any, scene: Scene, latent: dict[str, Any] | None = None) -> Tensor:
        """Pictures of a model that has its image prompts already; the scene's parts are not looked at."""
        positive, negative = toy.encode_text(scene.text), toy.encode_text("")
        if scene.hint is not None:
            apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
            positive, negative = apply(positive, negative, self.control_net, scene.hint, 1.0, 0.0, 1.0)[:2]
        latent = latent or empty(scene)
        settings = (scene.seed, toy.STEPS, toy.CFG, toy.SAMPLER, toy.SCHEDULER)
        samples = host_nodes.KSampler().sample(model, *settings, positive, negative, latent)[0]
        return host_nodes.VAEDecode().decode(self.vae, samples)[0]

    @torch.inference_mode()
    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Toy CLIP-I: cosine of the image embeddings of two sets of pictures (n, 96, 96, 3), pair by pair (n,)."""
        embeds = [self.clip_vision.encode_image(picture)["image_embeds"].float() for picture in (a, b)]
        return torch.nn.functional.cosine_similarity(*embeds)
