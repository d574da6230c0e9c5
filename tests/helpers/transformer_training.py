"""Small transformers to train on: the host's own or stand-ins, with stand-ins for encoders of pictures and texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.ldm.modules.attention as host_attention
import comfy.model_patcher
import torch
import torch.nn.functional as F
from image_prompt.host.latents import frames_of
from image_prompt.host.training_transformers import TransformerBase
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.noise import batch_noise
from image_prompt.ipadapter_core.training.trainable import new_trainable
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from image_prompt.training.encoded import Encodings
from image_prompt.training.loop import Output, Trainer
from safetensors.torch import load_file
from support import joint_transformer, open_transformer, tiny, tiny_flux, transformer
from support.tiny import CPU
from torch import Tensor, nn

from .training import SIZES, ShrinkingVae, captioned

TEXT, TOKENS = 7, 4
# a softmax over keys that all move alike does not change: AdamW makes steps of the rounding
CHANCE = "to_k_ip.bias"
RATES = {"drop_text": 0.2, "drop_image": 0.2, "drop_both": 0.2}  # often enough that each occurs in every run


def config_of(kind: str, **more: Any) -> TrainingConfig:
    return TrainingConfig.from_dict(
        {"kind": kind, "tokens": TOKENS, "steps": 50, "batch_size": 2, "warmup": 10, **RATES, **more}
    )


class WideVae(ShrinkingVae):
    """The same with 16 channels."""

    def encode(self, pictures: Tensor) -> Tensor:
        few = super().encode(pictures)
        return torch.cat((few, few.flip(1), -few, few * 0.5), 1)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents[:, :4])


class TextEncoders:
    """What the host's CLIP gives for Flux and SD3.5, seeded by the letters: (1, 7, width) and pooled (1, width)."""

    def __init__(self, context: int = tiny_flux.CONTEXT, pooled: int = tiny_flux.POOLED):
        self.context, self.pooled = context, pooled

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(tokens.encode()))
        shapes = (1, TEXT, self.context), (1, self.pooled)
        context, pooled = (torch.randn(*shape, generator=generator) for shape in shapes)
        return context, pooled


class ChatEncoder:
    """What it gives for Qwen-Image, Lumina 2 and Z-Image: as many tokens as the text has, and nothing pooled."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[Tensor, None]:
        generator = torch.Generator().manual_seed(zlib.crc32(tokens.encode()))
        return torch.randn(1, 3 + len(tokens) % 4, tiny_flux.CONTEXT, generator=generator), None


class VideoVae(WideVae):
    """One of videos: a batch is the frames of one."""

    def encode(self, pictures: Tensor) -> Tensor:
        return super().encode(pictures).movedim(0, 1)[None]

    def decode(self, latents: Tensor) -> Tensor:
        return torch.stack([super(VideoVae, self).decode(each.movedim(1, 0)) for each in latents])


class TinyOpenBase(TransformerBase):
    """A model for which nobody released an adapter."""

    def __init__(self, model: Any, clip_vision: Any):
        vae = VideoVae() if frames_of(model.model) else WideVae()
        super().__init__(model, vae, ChatEncoder(), clip_vision)


class TinyTransformerBase(TransformerBase):
    """SigLIP's pooled vector is stood in for by the small CLIP's embedding."""

    def __init__(self, model: Any, clip_vision: Any):
        super().__init__(model, WideVae(), TextEncoders(), clip_vision)

    def _reading(self, kind: Variant) -> Any:
        reading = super()._reading(kind)
        pooled = kind is Variant.INSTANTX and self.architecture.name == "Flux"
        return reading._replace(feature=super()._reading(Variant.XLABS).feature) if pooled else reading


def trainer(config: TrainingConfig, base: Any, folder: Path, **more: Any) -> Trainer:
    data = Encodings(base, config, captioned(), SIZES, {})
    network = base.model.model.diffusion_model
    trainable = new_trainable(config, network, base.sites, data.feature_width)
    return Trainer(config, base, data, trainable, Output(folder, every=0), **more)


Predict = Callable[[Tensor, Tensor, Any, Any, Tensor], Tensor]


def plain_loop(
    config: TrainingConfig, predict: Predict, parameters: Sequence[Tensor], ours: Trainer
) -> list[float]:
    """x = (1 - sigma) x0 + sigma eps, v = eps - x0, AdamW, one uniform draw for what is dropped; on the data of our trainer.

    predict: the velocity from noisy latents, sigma, context (a list of each row's, where they differ in length), pooled and
    features. Returns the losses.
    """
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    data, losses, dropped = ours.data, [], set()
    for number in range(config.steps):
        rows, _ = data.batch(ours.sampler.batch(number))
        drawn = batch_noise(config, number, tuple(rows["latents"].shape), ours.base.diffusion.times(config))
        dropped |= set(zip(drawn.drop_text.tolist(), drawn.drop_image.tolist(), strict=True))
        sigma = drawn.timesteps[:, None, None, None]
        noisy = (1 - sigma) * rows["latents"] + sigma * drawn.noise
        features, pooled = rows["features"].clone(), rows["pooled"].clone() if "pooled" in rows else None
        features[drawn.drop_image] = data.no_image
        if pooled is not None:
            pooled[drawn.drop_text] = data.no_text.pooled
        context = [
            data.no_text.context[0] if dropped else own[:length]
            for dropped, own, length in zip(drawn.drop_text, rows["context"], rows["lengths"], strict=True)
        ]
        if len({len(each) for each in context}) == 1:
            context = torch.stack(context)
        predicted = predict(noisy, drawn.timesteps, context, pooled, features)
        loss = F.mse_loss(predicted, drawn.noise - rows["latents"])
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (number + 1) / config.warmup)
        optimizer.step()
        losses.append(loss.item())
    assert len(dropped) == 4  # neither, the text, the image, both
    return losses


def require_equal(case: str, losses: Sequence[float], plain: Sequence[float], ours: Any, theirs: Any) -> None:
    """Losses to 1e-5, of those over 1 as a part of them; weights to 1e-4, but for the bias of XLabs' K', of which only
    rounding makes a gradient."""
    worst = max(abs(a - b) / max(1.0, b) for a, b in zip(losses, plain, strict=True))
    assert ours.keys() == theirs.keys()
    off = {key: (ours[key] - theirs[key]).abs().max().item() for key in ours if not key.endswith(CHANCE)}
    print(f"{case}: worst difference of a loss {worst:.1e}, of a weight {max(off.values()):.1e}")
    assert worst < 1e-5
    assert max(off.values()) < 1e-4, max(off, key=lambda key: off[key])


# --- the stand-ins, for hosts without hooks for transformers ---------------------------------------------------------


SCALES = {
    "Flux": 1.0,
    "SD3.5": 2.0,
    "qwen": 1.0,
    "z-image": 1.0,
}  # of a timestep; the host's 1000 would drown the stand-in's picture


class Sampling:
    """As the host's model_sampling, shifted by 3."""

    def __init__(self, scale: float):
        self.scale = scale

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * self.scale

    def sigma(self, timestep: Tensor) -> Tensor:
        t = timestep / self.scale
        return 3 * t / (1 + 2 * t)


class Condition:
    """As the host's CONDRegular."""

    def __init__(self, cond: Tensor):
        self.cond = cond

    def process_cond(self, batch_size: int, **_: Any) -> Condition:
        return Condition(self.cond.expand(batch_size, *self.cond.shape[1:]))


class Model(nn.Module):
    """As the host's BaseModel, around a stand-in."""

    manual_cast_dtype = None

    def __init__(self, network: nn.Module, scale: float):
        super().__init__()
        self.diffusion_model, self.model_sampling = network, Sampling(scale)
        self.latent_format = comfy.latent_formats.SD3()

    def process_latent_in(self, latents: Tensor) -> Tensor:
        return self.latent_format.process_in(latents)

    def extra_conds(self, **given: Any) -> dict[str, Condition]:
        return {"c_crossattn": Condition(given["cross_attn"]), "guidance": Condition(torch.ones(1))}

    def memory_required(self, *_: Any, **__: Any) -> int:
        return 0


class Patcher(comfy.model_patcher.ModelPatcher):
    """As the ModelPatcher of hosts with hooks."""

    def add_wrapper_with_key(self, *_: Any) -> None: ...


def install_hooks(monkeypatch: Any) -> None:
    """On hosts without hooks for transformers: also an attention that takes the options of a call."""
    plain = host_attention.attention_pytorch
    if not hasattr(host_attention, "wrap_attn"):
        monkeypatch.setattr(
            host_attention,
            "attention_pytorch",
            lambda *given, transformer_options=None, _inside_attn_wrapper=True, **more: plain(*given, **more),
        )
    transformer.install_hooks(monkeypatch)


_MAKERS = {
    "Flux": transformer.stand_in,
    "SD3.5": joint_transformer.stand_in,
    "qwen": partial(open_transformer.stand_in, open_transformer.Qwen),
    "z-image": partial(open_transformer.stand_in, open_transformer.OneStream),
}


def stand_in(family: str) -> Any:
    made = _MAKERS[family]()
    return Patcher(Model(made.model.diffusion_model, SCALES[family]), load_device=CPU, offload_device=CPU)


def require_node_trains_and_goes_on(kind: str, captions: str, **parts: Any) -> None:
    """The Train node: one step, then a second one from where it was. parts: model, clip, clip_vision."""
    count = len(captions.splitlines())
    given = {
        "vae": WideVae(),
        "images": tiny.picture(1, 64, 64, count=count),
        "captions": captions,
        "kind": kind,
        "batch_size": count,
        "size": 64,
        "learning_rate": 0.01,
        "name": "mine",
        "resume": True,
        "tokens": TOKENS,
        **parts,
    }

    def train(steps: int) -> Any:
        with torch.inference_mode():
            node = NODE_CLASS_MAPPINGS["ImagePromptTrain"]()
            return node.train(**{name: [value] for name, value in {**given, "steps": steps}.items()})

    adapter, curve, path = train(1)
    assert (adapter.spec.variant, adapter.spec.tokens) == (Variant(kind), TOKENS)
    assert curve.ndim == 4
    first = load_file(path)
    _, _, path = train(2)
    again = load_file(path)
    assert first.keys() == again.keys()
    assert any(not torch.equal(first[key], again[key]) for key in first)
