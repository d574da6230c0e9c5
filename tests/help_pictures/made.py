"""What the nodes show, as a user's own run would give it: pictures of the toy world, small models for the menus."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import stand_ins
from image_prompt.lab.demo.sheet import reference, to_image
from image_prompt.lab.demo.studio import Part, Scene, Studio, host_nodes, node
from image_prompt.lab.toy import models as toy
from PIL import Image
from torch import Tensor

SIDE = 256  # of a picture on a node
FIRST, SECOND = 37, 28  # seeds of the toy world's pictures
WIDTH = 2 * toy.LATENT_SIZE
FOR_TRANSFORMERS = ("flux", "sd3", "siglip", "sigclip", "patch14")


def furnish(base: Path) -> None:
    """A base directory with models under their public names, and pictures in input/."""
    (base / "models").mkdir()
    stand_ins.write_models(base / "models")
    for path in (base / "models").rglob("*"):
        if path.is_file() and any(word in path.name.lower() for word in FOR_TRANSFORMERS):
            path.unlink()  # small ones are of no released kind, and the Doctor says so
    (base / "input").mkdir()
    for name, picture in pictures(Studio()).items():
        image = to_image(picture)
        scale = SIDE / min(image.size)
        if scale > 1:
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
            )
        image.save(base / "input" / f"{name}.png")


@torch.inference_mode()
def pictures(studio: Studio) -> dict[str, Tensor]:
    """By name, (1, h, w, 3) in 0..1."""
    first, second = reference(FIRST), reference(SECOND)
    left = torch.zeros(1, 8 * toy.LATENT_SIZE, 8 * WIDTH)
    left[..., : 8 * toy.LATENT_SIZE] = 1
    both = (Part(first, mask=left), Part(second, mask=1 - left))
    regions = studio.make(Scene(both, size=(toy.LATENT_SIZE, WIDTH)))
    found = {"first": first, "second": second, "regions": regions}
    return found | {"heat": heat(studio, both), "sheet": sheet(studio, first)}


def sampled(studio: Studio, model: object, latent: dict[str, Tensor]) -> Tensor:
    """Pictures (n, h, w, 3)."""
    settings = (1, toy.STEPS, toy.CFG, toy.SAMPLER, toy.SCHEDULER)
    positive, negative = toy.encode_text(""), toy.encode_text("")
    samples = host_nodes.KSampler().sample(model, *settings, positive, negative, latent)[0]
    return host_nodes.VAEDecode().decode(studio.vae, samples)[0]


def encoded(studio: Studio, picture: Tensor) -> object:
    return node("ImagePromptEncode")(studio.ipadapter, studio.clip_vision, picture, "all together")[0]


def heat(studio: Studio, parts: tuple[Part, ...]) -> Tensor:
    """The heat maps of several prompts, side by side."""
    model = studio.model
    for part in parts:
        model = node("ImagePromptApply")(model, encoded(studio, part.reference), part.weight, mask=part.mask)[
            0
        ]
    model, watch = node("ImagePromptWatch")(model, 8)
    picture = sampled(studio, model, {"samples": torch.zeros(1, 4, toy.LATENT_SIZE, WIDTH)})
    maps = node("ImagePromptHeatMap")(watch, picture)[0]
    return torch.cat([*maps.split(1)], dim=1)


def sheet(studio: Studio, picture: Tensor) -> Tensor:
    """Of a sweep over five weights."""
    latent = {"samples": torch.zeros(1, 4, toy.LATENT_SIZE, toy.LATENT_SIZE)}
    prompt = encoded(studio, picture)
    model, batch, labels, columns = node("ImagePromptSweep")(
        studio.model, prompt, latent, "0, 0.25, 0.5, 0.75, 1", "linear"
    )
    return node("ImagePromptSheet")(sampled(studio, model, batch), labels, columns, 160)[0]
