"""SD1.5, its encoders and a base adapter in the published way: diffusers and transformers, full size, random weights."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional

# their types are looser than what they take
D: Any = diffusers
T: Any = transformers
pictures: Any = functional
TOKENS = 4
_BLOCKS = (320, 640, 1280, 1280)
_VAE_BLOCKS = (128, 256, 512, 512)
_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_VISION = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14,
    "projection_dim": 1024, "hidden_act": "gelu",
}  # fmt: skip


class Attention(nn.Module):
    """Text attention plus Attn(Q, K', V') of the last tokens (eq. 5), as a processor of diffusers."""

    def __init__(self, width: int, context: int):
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        text, image = encoder_hidden_states.split([encoder_hidden_states.shape[1] - TOKENS, TOKENS], 1)
        query = attn.to_q(hidden_states)
        pairs = ((attn.to_k(text), attn.to_v(text)), (self.to_k_ip(image), self.to_v_ip(image)))
        out: Any = sum(_attended(query, key, value, attn.heads) for key, value in pairs)
        return attn.to_out[1](attn.to_out[0](out))


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    q, k, v = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


class Published:
    """All models in fp32 in memory; each picture is encoded each time."""

    def __init__(self, side: int):
        self.side = side
        self.unet: Any = D.UNet2DConditionModel(
            block_out_channels=_BLOCKS, cross_attention_dim=768, attention_head_dim=8, layers_per_block=2
        )
        down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        self.vae: Any = D.AutoencoderKL(
            block_out_channels=_VAE_BLOCKS, down_block_types=down, up_block_types=up, layers_per_block=2, latent_channels=4
        )  # fmt: skip
        self.text = T.CLIPTextModel(T.CLIPTextConfig(**_TEXT))
        self.vision = T.CLIPVisionModelWithProjection(T.CLIPVisionConfig(**_VISION))
        for model in (self.unet, self.vae, self.text, self.vision):
            model.requires_grad_(False).eval()
        self.scheduler = D.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        self.projection: Any = nn.ModuleList([nn.Linear(1024, TOKENS * 768), nn.LayerNorm(768)])
        self.attentions = nn.ModuleList()
        self._attach()

    def _attach(self) -> None:
        found = dict(self.unet.attn_processors)
        for name in found:
            if name.endswith("attn2.processor"):
                width, context = self.unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
                found[name] = Attention(width, context)
                self.attentions.append(found[name])
        self.unet.set_attn_processor(found)

    def trained_parameters(self) -> list[nn.Parameter]:
        return list(chain(self.projection.parameters(), self.attentions.parameters()))

    def loss(self, file: Path) -> Tensor:
        """Eq. (6) of one picture."""
        image = Image.open(file).convert("RGB")
        square = pictures.center_crop(pictures.resize(image, [self.side]), [self.side])
        small = pictures.center_crop(pictures.resize(image, [224]), [224])
        with torch.no_grad():
            latents = self.vae.encode(pictures.to_tensor(square)[None] * 2 - 1).latent_dist.sample() * 0.18215
            embeds = self.vision(pictures.to_tensor(small)[None]).image_embeds
            text = self.text(torch.zeros(1, 77, dtype=torch.long))[0]
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (1,))
        noisy: Any = self.scheduler.add_noise(latents, noise, times)
        linear, norm = self.projection
        tokens = norm(linear(embeds).unflatten(-1, (TOKENS, -1)))
        predicted = self.unet(noisy, times, torch.cat((text, tokens), 1)).sample
        return F.mse_loss(predicted, noise)
