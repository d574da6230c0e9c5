"""Training stages of the toy transformer: the base by a plain loop, the adapter by the pack's own trainer in the host."""

import math

import torch
from torch import Tensor

from ..bootstrap import pack_module, start_host
from . import networks, text
from .config import FLUX_SHIFT
from .fitting import Run, fit, training_data
from .flux import Flux
from .train_diffusion import CAPTIONS_LEFT_OUT, WORDS_LEFT_OUT

# the base that is kept came of 1,600, and then 4,800 by --resume with seed 1
BATCH, STEPS, LR, SCENES = 32, 6_400, 1.5e-3, 12_000
ADAPTER_STEPS = 5_700


def train_base(run: Run) -> None:
    """The transformer, on the words that the UNet's base has learnt, which lose some at random."""
    data, table = training_data(run, SCENES), networks.load_text(run.out)
    network = networks.load_flux(run.out).requires_grad_(True) if run.resume else Flux()
    network.train()

    def loss(_: int) -> Tensor:
        index = torch.randint(len(data.latents), (BATCH,))
        context = table(text.drop_tokens(data.ids[index], WORDS_LEFT_OUT, CAPTIONS_LEFT_OUT))
        latents, noise, sigma = (
            data.latents[index],
            torch.randn(BATCH, *data.latents.shape[1:]),
            sigmas(BATCH),
        )
        noisy = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1))
        velocity = network(noisy, sigma, context, text.pooled(context))
        return (velocity - (noise - latents)).square().mean()

    fit("flux", run, STEPS, LR, [network], loss, lambda: networks.save_flux(network, run.out))


def train_adapter(run: Run) -> None:
    """Of XLabs' kind, by the pack's own trainer in the host."""
    start_host()
    # only now: they import the host's code
    flux_models, adapter_training = (pack_module(f"lab.toy.{n}") for n in ("flux_models", "adapter_training"))
    config = adapter_training.transformer_config(max(1, round(ADAPTER_STEPS * run.scale)), run.seed)
    path = run.out / networks.FILES["flux-adapter"]
    states, scenes = run.state / f"flux-adapter-{run.seed}-{config.steps}", training_data(run, SCENES).scenes
    with flux_models.hooked():
        base = adapter_training.ToyTransformer(run.out)
        adapter_training.train_adapter(base, config, path, scenes, run.resume, states)


def sigmas(count: int) -> Tensor:
    """Parts of noise (count,), spread evenly over the host's schedule for Flux, one in each part."""
    t = (torch.arange(count) + torch.rand(count)) / count
    return t * math.exp(FLUX_SHIFT) / (1 + t * (math.exp(FLUX_SHIFT) - 1))
