"""The toy networks for training: diffusers and transformers modules, loaded from the exported weights."""

from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bootstrap import allow_torchvision
from . import reader
from .config import CLIP_VISION, LINEAR_END, LINEAR_START, SCALE_FACTOR, UNET
from .flux import Flux
from .layouts import unet_from_ldm, unet_to_ldm
from .storage import load, save
from .tae import TinyVAE
from .text import TextEncoder

allow_torchvision()

from diffusers.models.controlnets.controlnet import ControlNetModel  # noqa: E402
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

Module = TypeVar("Module", bound=nn.Module)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# of SD1.5: input 7 and 8
COMPOSITION = "down_blocks.2."
FILES = {
    "vae": "vae.safetensors",
    "clip": "clip_vision.safetensors",
    "reader": reader.FILE,
    "base": "base.safetensors",
    "text": "text.safetensors",
    "control": "controlnet.safetensors",
    "adapter": "ip-adapter_toy.safetensors",
    "flux": "flux.safetensors",
    "flux-adapter": "ip-adapter_toy-flux.safetensors",
}


def load_vae(folder: Path) -> TinyVAE:
    """Trained VAE, frozen."""
    vae = TinyVAE()
    weights = load(folder / FILES["vae"])
    vae.load_state_dict({name: weights[name] for name in vae.state_dict()})
    return frozen(vae)


def save_vae(vae: TinyVAE, folder: Path) -> None:
    """The host divides latents by vae_scale after encoding and multiplies before decoding."""
    scale = {"vae_scale": torch.tensor(SCALE_FACTOR), "vae_shift": torch.tensor(0.0)}
    save(vae.state_dict() | scale, folder / FILES["vae"])


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET.diffusers())


@torch.no_grad()
def restrict(unet: nn.Module) -> None:
    """Make the blocks mean what they are known for in SD1.5: those of the composition read the words of shapes alone, all
    others the rest of the words (text.TextEncoder).
    """
    half = UNET.words // 2
    for path, module in unet.named_modules():
        if path.endswith("attn2"):
            other = slice(half, None) if path.startswith(COMPOSITION) else slice(half)
            for part in ("to_k", "to_v"):
                module.get_parameter(f"{part}.weight")[:, other] = 0


class TwoHalves:
    """Cross-attention (a diffusers processor) for wide pictures: of twice as many contexts as pictures, the first of them
    are read in the left halves, the rest in the right ones.
    """

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        contexts = encoder_hidden_states.split(len(hidden_states))
        q = _by_head(attn.to_q(hidden_states), attn.heads)
        read: list[Tensor] = []
        for each in contexts:
            k, v = (_by_head(to(each), attn.heads) for to in (attn.to_k, attn.to_v))
            read.append(F.scaled_dot_product_attention(q, k, v))
        out = read[0]
        if len(read) == 2:
            out = torch.lerp(read[1], read[0], _left(hidden_states.shape[1])[:, None])
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _left(positions: int) -> Tensor:
    """How much of each position of a picture twice as wide as high is in its left half (positions,)."""
    rows = round((positions / 2) ** 0.5)
    columns = positions // rows
    return (columns / 2 - torch.arange(columns)).clamp(0, 1).repeat(rows)


def read_halves(unet: nn.Module) -> None:
    """Let a UNet be given a context for each half of wide pictures."""
    for path, module in unet.named_modules():
        if path.endswith("attn2"):
            cast(Any, module).set_processor(TwoHalves())


def load_unet(folder: Path) -> UNet2DConditionModel:
    """Trained base UNet, frozen."""
    unet = new_unet()
    unet.load_state_dict(unet_from_ldm(load(folder / FILES["base"]), unet.state_dict()))
    return frozen(unet)


def save_unet(unet: UNet2DConditionModel, folder: Path) -> None:
    save(unet_to_ldm(unet.state_dict()), folder / FILES["base"], eight_bits=True)


def load_text(folder: Path) -> TextEncoder:
    """Trained text table, frozen."""
    text = TextEncoder()
    text.load_state_dict(load(folder / FILES["text"]))
    return frozen(text)


def new_control(unet: UNet2DConditionModel) -> ControlNetModel:
    """ControlNet that starts as a copy of the base's encoder."""
    return ControlNetModel.from_unet(unet)


def load_control(folder: Path) -> ControlNetModel:
    """Trained ControlNet, frozen."""
    control = new_control(new_unet())
    weights = load(folder / FILES["base"]) | load(folder / FILES["control"])
    control.load_state_dict(unet_from_ldm(weights, control.state_dict()))
    return frozen(control)


def save_control(control: ControlNetModel, folder: Path) -> None:
    """What was trained; the rest is the base's own encoder."""
    trained = {name: value for name, value in control.named_parameters() if is_controls_own(name)}
    save(unet_to_ldm(trained), folder / FILES["control"])


def is_controls_own(name: str) -> bool:
    """Whether a ControlNet's parameter is trained: its hint and zero convolutions, and its first level."""
    return name.startswith(("controlnet_", "conv_in.", "down_blocks.0."))


def load_flux(folder: Path) -> Flux:
    """Trained transformer, frozen."""
    network = Flux()
    network.load_state_dict(load(folder / FILES["flux"]))
    return frozen(network)


def save_flux(network: Flux, folder: Path) -> None:
    save(network.state_dict(), folder / FILES["flux"], eight_bits=True)


def new_clip() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_VISION.as_dict()))


def load_clip(folder: Path) -> CLIPVisionModelWithProjection:
    """Trained image encoder, frozen."""
    clip = new_clip()
    clip.load_state_dict(load(folder / FILES["clip"]))
    return frozen(clip)


def save_clip(clip: CLIPVisionModelWithProjection, folder: Path) -> None:
    save(clip.state_dict(), folder / FILES["clip"])


def normalise(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, 96, 96) in 0..1 -> CLIP's pixel values."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (pictures - mean) / std


def alphas() -> Tensor:
    """Cumulative signal variance of the 1000 steps (1000,)."""
    return (1 - torch.linspace(LINEAR_START**0.5, LINEAR_END**0.5, 1000) ** 2).cumprod(0)


def frozen(module: Module) -> Module:
    """The module in evaluation mode, without gradients."""
    return module.eval().requires_grad_(False)
