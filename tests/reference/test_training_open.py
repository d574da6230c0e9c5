"""Our trainer on the host's Qwen-Image and Z-Image beside a plain loop, in which the formula is written out."""

import copy

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
import torch.nn.functional as F
from helpers.training import Remembers
from helpers.transformer_training import TOKENS, TinyOpenBase, config_of, plain_loop, require_equal, trainer
from image_prompt.host.frozen import in_training
from support import parity, tiny_open
from support.tiny_open import BLOCKS, DIM, HEADS, PADDED
from torch import nn

OVERRIDE = "optimized_attention_override"
pytestmark = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)


def model_of(family):
    if family == "z-image" and not tiny_open.numbers_blocks():
        pytest.skip("this host does not say which block runs")
    return tiny_open.KINDS[family].make()


class Plain:
    """The host's network, with a tensor for each of the adapter's."""

    def __init__(self, family, network, start):
        self.network, self.prefix = network, tiny_open.KINDS[family].architecture.file_prefix
        self.frames = tiny_open.KINDS[family].frames
        self.trained = {key: nn.Parameter(tensor.clone()) for key, tensor in start.items()}

    def tokens(self, features):
        t = {key.removeprefix("image_proj."): tensor for key, tensor in self.trained.items()}
        tokens = F.linear(features, t["proj.weight"], t["proj.bias"]).view(len(features), TOKENS, -1)
        return F.layer_norm(tokens, tokens.shape[-1:], t["norm.weight"], t["norm.bias"])

    def predict(self, noisy, sigma, context, pooled, features):
        """One row after another, with its text as it is."""
        rows = zip(noisy.split(1), sigma.split(1), context, features.split(1), strict=True)
        return torch.cat([self.row(x, s, text[None], seen) for x, s, text, seen in rows])

    def row(self, x, sigma, text, features):
        tokens, block = self.tokens(features), iter(range(BLOCKS))
        image = (x.shape[-2] // 2) * (x.shape[-1] // 2)
        image = image if self.frames else -(-image // PADDED) * PADDED

        def override(_, *args, **kwargs):
            q, k, v = args[:3]
            out = host_attention.attention_pytorch(*args, **kwargs)
            q = q if q.ndim == 4 else q.unflatten(-1, (HEADS, DIM)).transpose(1, 2)
            if q.shape[2] <= image:  # text alone, or the picture alone
                return out
            return torch.cat(
                (out[:, :-image], out[:, -image:] + self.image(q[:, :, -image:], tokens, next(block))), 1
            )

        more = {} if self.frames else {"num_tokens": text.shape[1]}
        options = {OVERRIDE: override}
        x = x.view(*x.shape[:2], *self.frames, *x.shape[2:])
        with in_training():
            out = self.network(x, sigma, context=text, transformer_options=options, **more)
        assert next(block, None) is None
        return out.flatten(1, -3)

    def image(self, q, tokens, number):
        """softmax(q K'ᵀ / √d) V', K' of root mean square 1 in each head."""
        pair = (self.trained[f"ip_adapter.{self.prefix}{number}.to_{role}_ip.weight"] for role in "kv")
        k, v = ((tokens @ weight.T).unflatten(-1, (HEADS, DIM)).transpose(1, 2) for weight in pair)
        k = k / (k.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return ((q @ k.transpose(-1, -2) / DIM**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("family", ["qwen", "z-image"])
def test_a_run_equals_a_plain_loop(family, tmp_path):
    config, base = config_of("base", batch_size=3), TinyOpenBase(model_of(family), parity.lively_encoder())
    ours, seen = trainer(config, base, tmp_path), Remembers()
    start = {key: tensor.clone() for key, tensor in ours.trainable.adapter.tensors().items()}
    plain = Plain(family, copy.deepcopy(base.model.model.diffusion_model), start)
    ours.run(seen)
    losses = plain_loop(config, plain.predict, list(plain.trained.values()), ours)
    state = ours.trainable.adapter.tensors()
    require_equal(family, seen.losses, losses, state, plain.trained)
    moved = {key: (state[key] - tensor).abs().max() for key, tensor in start.items()}
    assert min(moved.values()) > 1e-3, min(moved, key=moved.get)
