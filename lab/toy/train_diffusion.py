"""Training stages of the diffusion models: the base, the ControlNet on the base alone, the adapter on the frozen base."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bootstrap import pack_module, start_host
from . import networks, text, world
from .fitting import Data, Run, fit, index_batches, training_data

BATCH = 32
# (noisy, t, index) -> predicted noise
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


def train_base(run: Run) -> None:
    """The UNet and its text table, with captions that lose words at random."""
    data = training_data(run)
    unet = networks.load_unet(run.out).requires_grad_(True) if run.resume else networks.new_unet()
    table = networks.load_text(run.out).requires_grad_(True) if run.resume else text.TextEncoder()

    def denoise(x: Tensor, t: Tensor, index: Tensor) -> Tensor:
        return unet(x, t, table(text.drop_tokens(data.ids[index], 0.3, 0.12))).sample

    def save() -> None:
        networks.save_unet(unet, run.out)
        networks.save(table.state_dict(), run.out / networks.FILES["text"])

    fit("base", run, 1500, 1.5e-3, [unet, table], _diffusion_loss(data, denoise), save)


def train_control(run: Run) -> None:
    """A ControlNet that draws the shape of the silhouette, whatever the colours."""
    data, unet, table = training_data(run), networks.load_unet(run.out), networks.load_text(run.out)
    control = networks.load_control(run.out) if run.resume else networks.new_control(unet)
    for name, parameter in control.named_parameters():
        parameter.requires_grad_(networks.is_controls_own(name))
    control.train()

    def denoise(x: Tensor, t: Tensor, index: Tensor) -> Tensor:
        context = table(text.drop_tokens(data.ids[index], 0.3, 0.12))
        hint = world.silhouettes(data.scenes[index])
        down, middle = control(x, t, context, controlnet_cond=hint, return_dict=False)
        return unet(
            x, t, context, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample

    def save() -> None:
        networks.save_control(control, run.out)

    fit("control", run, 900, 1e-3, [control], _diffusion_loss(data, denoise), save)


def train_adapter(run: Run) -> None:
    """The paper's adapter, by the pack's own trainer in the host."""
    start_host()
    # only now: it imports the host's code
    adapter_training = pack_module("lab.toy.adapter_training")
    steps, path = max(1, round(1300 * run.scale)), run.out / networks.FILES["adapter"]
    adapter_training.train_adapter(run.out, path, training_data(run).scenes, steps, run.seed, run.resume)


def _diffusion_loss(data: Data, denoise: Denoise) -> Callable[[], Tensor]:
    """L_simple with timesteps sampled towards the noisy end (density 2t)."""
    alphas, batches = networks.alphas(), index_batches(len(data.latents), BATCH)

    def loss() -> Tensor:
        index = next(batches)
        t = (1000 * torch.rand(BATCH).sqrt()).long().clamp(max=999)
        a = alphas[t].view(-1, 1, 1, 1)
        noise = torch.randn(BATCH, *data.latents.shape[1:])
        noisy = a.sqrt() * data.latents[index] + (1 - a).sqrt() * noise
        return F.mse_loss(denoise(noisy, t, index), noise)

    return loss
