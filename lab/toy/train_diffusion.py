"""Training stages of the diffusion models: the base, the ControlNet on the base alone, the adapter on the frozen base."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..bootstrap import pack_module, start_host
from . import networks, text, world
from .fitting import Run, fit, training_data

# pictures of a step; of a step with wide pictures, two beside each other
BATCH, WIDE_BATCH = 16, 8
WIDE_EVERY = 3
# part of the words left out of captions; part of the captions left out
WORDS_LEFT_OUT, CAPTIONS_LEFT_OUT = 0.25, 0.15


def train_base(run: Run) -> None:
    """The UNet and its text table, with captions that lose words at random.

    Every third step is of two pictures beside each other, each half with the caption of its own, so that regions are known.
    """
    data = training_data(run)
    unet = networks.load_unet(run.out).requires_grad_(True) if run.resume else networks.new_unet()
    table = networks.load_text(run.out).requires_grad_(True) if run.resume else text.TextEncoder()
    unet.train()
    networks.read_halves(unet)

    def loss(step: int) -> Tensor:
        networks.restrict(unet)
        if step % WIDE_EVERY == WIDE_EVERY - 1:
            pairs = torch.randint(len(data.latents), (2, WIDE_BATCH))
            ids = text.drop_tokens(data.ids[pairs.flatten()], WORDS_LEFT_OUT, CAPTIONS_LEFT_OUT)
            return _noise_error(
                torch.cat([*data.latents[pairs]], dim=-1), lambda x, t: unet(x, t, table(ids)).sample
            )
        index = torch.randint(len(data.latents), (BATCH,))
        ids = text.drop_tokens(data.ids[index], WORDS_LEFT_OUT, CAPTIONS_LEFT_OUT)
        return _noise_error(data.latents[index], lambda x, t: unet(x, t, table(ids)).sample)

    def write() -> None:
        networks.restrict(unet)
        networks.save_unet(unet, run.out)
        networks.save(table.state_dict(), run.out / networks.FILES["text"])

    fit("base", run, 3200, 1.2e-3, [unet, table], loss, write)


def train_control(run: Run) -> None:
    """A ControlNet that draws the shape of the silhouette, whatever the colours."""
    data, unet, table = training_data(run), networks.load_unet(run.out), networks.load_text(run.out)
    control = networks.load_control(run.out) if run.resume else networks.new_control(unet)
    for name, parameter in control.named_parameters():
        parameter.requires_grad_(networks.is_controls_own(name))
    control.train()

    def loss(_: int) -> Tensor:
        index = torch.randint(len(data.latents), (BATCH,))
        context = table(text.drop_tokens(data.ids[index], WORDS_LEFT_OUT, CAPTIONS_LEFT_OUT))
        hint = world.silhouettes(data.scenes[index])

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            down, middle = control(x, t, context, controlnet_cond=hint, return_dict=False)
            return unet(
                x, t, context, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample

        return _noise_error(data.latents[index], denoise)

    fit("control", run, 700, 1e-3, [control], loss, lambda: networks.save_control(control, run.out))


def train_adapter(run: Run) -> None:
    """The paper's adapter, by the pack's own trainer in the host."""
    start_host()
    # only now: it imports the host's code
    adapter_training = pack_module("lab.toy.adapter_training")
    config = adapter_training.unet_config(max(1, round(1500 * run.scale)), run.seed)
    base, path = adapter_training.PartlySteered(folder=run.out), run.out / networks.FILES["adapter"]
    states = run.state / f"adapter-{run.seed}-{config.steps}"
    adapter_training.train_adapter(base, config, path, training_data(run).scenes, run.resume, states)


def _noise_error(latents: Tensor, denoise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Error of denoise(noisy, t) in the noise, weighted by 1 + sigma² (as if v were predicted): what is drawn is decided
    where there is much noise, and there the noise itself is easily predicted.
    """
    # spread evenly over the steps, one in each part
    parts = torch.arange(len(latents)) + torch.rand(len(latents))
    t = (parts * 1000 / len(latents)).long().clamp(max=999)
    a = networks.alphas()[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    error = (denoise(a.sqrt() * latents + (1 - a).sqrt() * noise, t) - noise) ** 2
    return (error / a).mean()
