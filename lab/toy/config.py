"""Every size and constant of the toy world, once; the diffusers and the host configurations derive from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .world import SIZE

WEIGHTS = Path(__file__).resolve().parent / "weights"
# the host's SD1.5 latent format multiplies VAE latents with it
SCALE_FACTOR = 0.18215
# sigma_max 4.3: with SD's 14.6 global colour is not learnt at this size
LINEAR_START, LINEAR_END = 0.00085, 0.0058
# of the timesteps of Flux, as the host has it
FLUX_SHIFT = 1.15


@dataclass(frozen=True)
class UNetConfig:
    """SD1.5's layout with few channels: 16 cross-attention sites.

    Not 32: the layout fixes GroupNorm at 32 groups, which is then an instance norm and erases global colour.
    """

    channels: tuple[int, ...] = (64, 64, 64, 64)
    # what an SD1.5 is recognised by; the toy words fill the first 64 numbers, the rest is 0
    context: int = 768
    words: int = 64
    # of 16 channels, as many as a CPU adds at once; SD1.5's 8 would take twice the time
    heads: int = 4
    res_blocks: int = 2
    latent_channels: int = 4
    latent_size: int = SIZE // 8

    def diffusers(self) -> dict[str, Any]:
        """Arguments of UNet2DConditionModel (attention_head_dim counts heads there), which reads the words alone."""
        return {
            "sample_size": self.latent_size,
            "block_out_channels": self.channels,
            "layers_per_block": self.res_blocks,
            "cross_attention_dim": self.words,
            "attention_head_dim": self.heads,
        }

    def host(self) -> dict[str, Any]:
        """The host's unet_config, also the arguments of its ControlNet."""
        levels = len(self.channels)
        attended = [1] * (levels - 1) + [0]
        return {
            "image_size": self.latent_size,
            "in_channels": self.latent_channels,
            "out_channels": self.latent_channels,
            "model_channels": self.channels[0],
            "num_res_blocks": [self.res_blocks] * levels,
            "channel_mult": [c // self.channels[0] for c in self.channels],
            "transformer_depth": [d for d in attended for _ in range(self.res_blocks)],
            "transformer_depth_output": [d for d in attended for _ in range(self.res_blocks + 1)],
            "transformer_depth_middle": 1,
            "num_heads": self.heads,
            "num_head_channels": -1,
            "context_dim": self.context,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "legacy": False,
        }


@dataclass(frozen=True)
class FluxConfig:
    """Flux.1's layout, three blocks of each kind, on the same latents: 36 tokens of 2x2 cells.

    Four channels instead of 16: those of the toy VAE. theta 100 instead of 10000, for positions end at 5.
    """

    width: int = 112
    heads: int = 4
    double: int = 3
    single: int = 3
    mlp_ratio: float = 2.0
    axes: tuple[int, ...] = (4, 12, 12)
    theta: int = 100
    patch: int = 2
    channels: int = UNetConfig.latent_channels
    context: int = UNetConfig.words
    pooled: int = UNetConfig.words

    def host(self) -> dict[str, Any]:
        """The host's unet_config."""
        return {
            "image_model": "flux",
            "in_channels": self.channels,
            "out_channels": self.channels,
            "context_in_dim": self.context,
            "vec_in_dim": self.pooled,
            "hidden_size": self.width,
            "mlp_ratio": self.mlp_ratio,
            "num_heads": self.heads,
            "depth": self.double,
            "depth_single_blocks": self.single,
            "axes_dim": list(self.axes),
            "theta": self.theta,
            "patch_size": self.patch,
            "qkv_bias": True,
            "guidance_embed": False,
        }


@dataclass(frozen=True)
class CLIPVisionConfig:
    """A small ViT; its dictionary is both transformers' and the host's."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    patch: int = 12
    projection: int = 64

    def as_dict(self) -> dict[str, Any]:
        """Arguments of transformers' CLIPVisionConfig, and the host's JSON."""
        return {
            "model_type": "clip_vision_model",
            "hidden_act": "gelu",
            "hidden_size": self.width,
            "image_size": SIZE,
            "intermediate_size": 4 * self.width,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": self.heads,
            "num_channels": 3,
            "num_hidden_layers": self.layers,
            "patch_size": self.patch,
            "projection_dim": self.projection,
        }


UNET, FLUX, CLIP_VISION = UNetConfig(), FluxConfig(), CLIPVisionConfig()
