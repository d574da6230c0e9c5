"""Training stages of the encoders: the VAE, the CLIP image encoder, and the reader that judges pictures."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import networks, storage, world
from .fitting import Run, fit, scenes_of_step
from .reader import FILE, Reader
from .tae import TinyVAE

# of the latents' std: small sampling errors must not show
LATENT_NOISE = 0.1
# steps; nothing but img2img needs the encoder
ENCODER_EVERY = 4


def train_vae(run: Run) -> None:
    """The decoder is trained on world.latents() with a little noise, the encoder to predict them from the picture."""
    vae = networks.load_vae(run.out).requires_grad_(True).train() if run.resume else TinyVAE()
    to: Callable[..., TinyVAE] = vae.to
    vae = to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        scenes = scenes_of_step(4, run.seed, step)
        x = world.render(scenes).contiguous(memory_format=torch.channels_last)
        z = world.latents(scenes)
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(z + LATENT_NOISE * torch.randn_like(z)).float()
            found = vae.encode(x).float() if step % ENCODER_EVERY == 0 else z
        return (y - x).abs().mean() + 0.5 * _edge_error(y, x) + F.mse_loss(found, z)

    fit("vae", run, 1200, 7e-4, [vae], loss, lambda: networks.save_vae(vae, run.out))


def train_clip(run: Run) -> None:
    """The cosine of two embeddings is the similarity of the contents; linear heads keep the attributes readable."""
    clip = networks.load_clip(run.out).requires_grad_(True) if run.resume else networks.new_clip()
    sizes = (len(world.SHAPES), len(world.PATTERNS), 6)
    heads = nn.ModuleList([nn.Linear(clip.config.projection_dim, n) for n in sizes])

    def loss(step: int) -> Tensor:
        s = scenes_of_step(24, run.seed + 1, step)
        both = torch.cat([world.render(s), world.render(world.replace(s, run.seed + step))])
        embeds = clip(networks.normalise(both)).image_embeds
        unit = F.normalize(embeds, dim=-1)
        shape, pattern, rgb = (head(embeds) for head in heads)
        colours = torch.cat([s.colour_rgb, s.ground_rgb], 1).repeat(2, 1)
        classes = F.cross_entropy(shape, s.shape.repeat(2)) + F.cross_entropy(pattern, s.pattern.repeat(2))
        alike = F.mse_loss(unit @ unit.T, target_cosines(s).repeat(2, 2))
        return 4 * alike + classes + 2 * F.mse_loss(rgb, colours)

    fit("clip", run, 1500, 1e-3, [clip, heads], loss, lambda: networks.save_clip(clip, run.out))


def train_reader(run: Run) -> None:
    """On pictures at any angle and place, blurred and noisy, so that it is the shape that counts."""
    reader = Reader()

    def loss(step: int) -> Tensor:
        s = scenes_of_step(32, run.seed + 2, step)
        x = world.render(s)
        if step % 2:
            x = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        shape, pattern = reader(x + 0.05 * torch.randn_like(x))
        return F.cross_entropy(shape, s.shape) + F.cross_entropy(pattern, s.pattern)

    fit("reader", run, 800, 3e-3, [reader], loss, lambda: storage.save(reader.state_dict(), run.out / FILE))


def target_cosines(s: world.Scenes) -> Tensor:
    """Target cosines (n, n) between contents: shape and pattern as classes, the colours by distance in RGB."""
    shape, pattern = ((n[:, None] == n).float() for n in (s.shape, s.pattern))
    colour, ground = (torch.exp(-((torch.cdist(c, c) / 0.45) ** 2)) for c in (s.colour_rgb, s.ground_rgb))
    return 0.35 * shape + 0.15 * pattern + 0.3 * colour + 0.2 * ground


def _edge_error(y: Tensor, x: Tensor) -> Tensor:
    d = y - x
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
