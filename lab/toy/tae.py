"""The toy VAE in TAESD's layout, which every host detects.

Why not AutoencoderKL: the host fixes its GroupNorm at 32 groups, which at 32 channels is an instance norm, and the
last one of the decoder then erases the picture's global colour.
"""

import torch
from torch import Tensor, nn

WIDTH = 64
# of the layout, per resolution, full size first
BLOCKS = (1, 3, 3, 3)
# of those, the ones trained; zeros make the rest a ReLU
ENCODER_BLOCKS, DECODER_BLOCKS = (0, 1, 1, 1), (0, 1, 2, 3)


class Block(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Blank(nn.ReLU):
    """A block whose convolutions are all zero."""


class Clamp(nn.Module):
    """Soft limit of latents at +-3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class TinyVAE(nn.Module):
    """Pictures (n, 3, h, w) in 0..1 <-> latents (n, 4, h/8, w/8) of about mean 0 and std 1."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = nn.Sequential(*_encoder_layers())
        self.taesd_decoder = nn.Sequential(*_decoder_layers())

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)


def complete(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's weights with the untrained blocks of the layout written out as zeros."""
    blank = Block().state_dict()
    full = dict(weights)
    for name, layers in (("taesd_encoder", _encoder_layers()), ("taesd_decoder", _decoder_layers())):
        for i in (i for i, layer in enumerate(layers) if isinstance(layer, Blank)):
            full |= {f"{name}.{i}.{key}": torch.zeros_like(value) for key, value in blank.items()}
    return full


def _encoder_layers() -> list[nn.Module]:
    layers: list[nn.Module] = [_conv(3)]
    for level, trained in enumerate(ENCODER_BLOCKS):
        layers += [_conv(stride=2, bias=False)] if level else []
        layers += _blocks(level, trained)
    return [*layers, _conv(outputs=4)]


def _decoder_layers() -> list[nn.Module]:
    layers: list[nn.Module] = [Clamp(), _conv(4), nn.ReLU()]
    for level, trained in reversed(list(enumerate(DECODER_BLOCKS))):
        layers += [nn.Upsample(scale_factor=2), _conv(bias=False)] if level < len(BLOCKS) - 1 else []
        layers += _blocks(level, trained)
    return [*layers, _conv(outputs=3)]


def _blocks(level: int, trained: int) -> list[nn.Module]:
    return [Block() if i < trained else Blank() for i in range(BLOCKS[level])]


def _conv(inputs: int = WIDTH, outputs: int = WIDTH, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
