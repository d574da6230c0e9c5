"""Training stages of the encoders: the VAE and the CLIP image encoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import networks, world
from .fitting import Run, fit, scene_batches
from .tae import TinyVAE

# of the latents' std: small sampling errors must not show
LATENT_NOISE = 0.1


def train_vae(run: Run) -> None:
    """The decoder is trained on world.latents() with a little noise, the encoder to predict them from the picture."""
    vae = networks.load_vae(run.out).requires_grad_(True).train() if run.resume else TinyVAE()
    to: Callable[..., TinyVAE] = vae.to
    vae = to(memory_format=torch.channels_last)
    batches = scene_batches(16, run.seed)

    def loss() -> Tensor:
        scenes = next(batches)
        x = world.render(scenes).contiguous(memory_format=torch.channels_last)
        z = world.latents(scenes)
        with torch.autocast("cpu", torch.bfloat16):
            found = vae.encode(x).float()
            y = vae.decode(z + LATENT_NOISE * torch.randn_like(z)).float()
        return (y - x).abs().mean() + 0.5 * _edge_error(y, x) + 0.2 * F.mse_loss(found, z)

    fit("vae", run, 1700, 2e-3, [vae], loss, lambda: networks.save_vae(vae, run.out))


def train_clip(run: Run) -> None:
    """The cosine of two embeddings is the similarity of the contents; linear heads keep the attributes readable."""
    clip = networks.load_clip(run.out).requires_grad_(True) if run.resume else networks.new_clip()
    sizes = (len(world.SHAPES), 6)
    heads = nn.ModuleList([nn.Linear(clip.config.projection_dim, n) for n in sizes])
    batches = enumerate(scene_batches(32, run.seed + 1_000_000))

    def loss() -> Tensor:
        step, s = next(batches)
        both = torch.cat([world.render(s), world.render(world.replace(s, run.seed + step))])
        embeds = clip(networks.normalise(both)).image_embeds
        unit = F.normalize(embeds, dim=-1)
        shape, rgb = (head(embeds) for head in heads)
        colours = torch.cat([s.colour_rgb, s.ground_rgb], 1).repeat(2, 1)
        classes = F.cross_entropy(shape, s.shape.repeat(2))
        alike = F.mse_loss(unit @ unit.T, target_cosines(s).repeat(2, 2))
        return 4 * alike + classes + 2 * F.mse_loss(rgb, colours)

    fit("clip", run, 3000, 1e-3, [clip, heads], loss, lambda: networks.save_clip(clip, run.out))


def target_cosines(s: world.Scenes) -> Tensor:
    """Target cosines (n, n) between contents: the shape as a class, the colours by distance in RGB."""
    shape = (s.shape[:, None] == s.shape).float()
    colour, ground = (torch.exp(-((torch.cdist(c, c) / 0.45) ** 2)) for c in (s.colour_rgb, s.ground_rgb))
    return 0.4 * shape + 0.35 * colour + 0.25 * ground


def _edge_error(y: Tensor, x: Tensor) -> Tensor:
    d = y - x
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
