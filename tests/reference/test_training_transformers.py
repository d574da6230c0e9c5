"""Our trainer on Flux and SD3.5 beside a plain loop on diffusers' transformers: the same losses and weights."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
import torch.nn.functional as F
from diffusers.loaders.ip_adapter import FluxIPAdapterMixin, SD3IPAdapterMixin
from helpers.training import Remembers
from helpers.transformer_training import (
    CHANCE,
    TOKENS,
    TinyTransformerBase,
    config_of,
    plain_loop,
    require_equal,
    trainer,
)
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.base import SampleRequest, Texts
from image_prompt.ipadapter_core.training.export import save_adapter
from safetensors.torch import load_file
from support import parity, tiny_flux, tiny_sd3
from support import transformer_layouts as layouts
from support.transformer_layouts import resaved_sd3
from torch import nn

pytestmark = pytest.mark.skipif(
    not hasattr(host_attention, "wrap_attn"),
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
if hasattr(host_attention, "wrap_attn"):
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
    from support import flux_oracle, sd3_oracle


class OfXLabs:
    """diffusers' own processors and projection."""

    def __init__(self, **model):
        self.twin = flux_oracle.Twin(**model)

    def load(self, start):
        self.twin.load_xlabs(start)
        network = self.twin.network
        processors = [
            p for p in network.attn_processors.values() if isinstance(p, FluxIPAdapterAttnProcessor)
        ]
        projection = network.encoder_hid_proj.image_projection_layers[0]
        found = {
            "image_proj.proj.weight": projection.image_embeds.weight,
            "image_proj.proj.bias": projection.image_embeds.bias,
        }
        found |= {f"image_proj.norm.{name}": getattr(projection.norm, name) for name in ("weight", "bias")}
        for n, processor in enumerate(processors):
            for role in "kv":
                linear = getattr(processor, f"to_{role}_ip")[0]
                found |= {
                    f"ip_adapter.{n}.to_{role}_ip.{name}": getattr(linear, name)
                    for name in ("weight", "bias")
                }
        return found

    def predict(self, noisy, sigma, context, pooled, features):
        guidance = torch.ones(len(noisy))
        batch = flux_oracle.Batch(noisy, sigma, context, pooled, guidance)
        return self.twin.predict(batch, [features[:, None]])


class OfInstantX(OfXLabs):
    """The formula of its attention_processor.py, and its projection in plain layers."""

    def load(self, start):
        self.twin.network.encoder_hid_proj = None
        make = lambda tensors: {key: nn.Parameter(tensor.clone()) for key, tensor in tensors.items()}  # noqa: E731
        self.proj, self.pairs = make(start["image_proj"]), make(start["ip_adapter"])
        return {f"image_proj.{k}": t for k, t in self.proj.items()} | {
            f"ip_adapter.{k}": t for k, t in self.pairs.items()
        }

    def predict(self, noisy, sigma, context, pooled, features):
        p = self.proj
        hidden = F.gelu(F.linear(features, p["proj.0.weight"], p["proj.0.bias"]))
        tokens = F.linear(hidden, p["proj.2.weight"], p["proj.2.bias"]).view(len(features), TOKENS, -1)
        tokens = F.layer_norm(tokens, tokens.shape[-1:], p["norm.weight"], p["norm.bias"])
        self.twin.load_instantx(self.pairs, tokens, 1.0)
        batch = flux_oracle.Batch(noisy, sigma, context, pooled, torch.ones(len(noisy)))
        return self.twin.predict(batch)


class OfSD3:
    """diffusers' own processors and resampler."""

    def __init__(self):
        self.twin = sd3_oracle.Twin()

    def load(self, start):
        self.twin.load(start, 1.0)
        network = self.twin.network
        processors = [
            p for p in network.attn_processors.values() if isinstance(p, SD3IPAdapterJointAttnProcessor2_0)
        ]
        found = {f"ip_adapter.{n}.{k}": t for n, p in enumerate(processors) for k, t in p.named_parameters()}
        return found | {f"image_proj.{key}": t for key, t in network.image_proj.named_parameters()}

    def predict(self, noisy, sigma, context, pooled, features):
        return self.twin.predict(sd3_oracle.Batch(noisy, 1000 * sigma, context, pooled), [features])


CASES = {"Flux xlabs": OfXLabs, "Flux instantx": OfInstantX, "SD3.5 instantx": OfSD3}


def by_role(tensors):
    parts = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        role, name = key.split(".", 1)
        parts[role][name] = tensor.clone()
    return parts


@pytest.mark.parametrize("case", CASES)
def test_a_run_equals_a_plain_loop(case, tmp_path):
    config, oracle = config_of(case.split()[1]), CASES[case]()
    base = TinyTransformerBase(oracle.twin.model, parity.lively_encoder())
    ours, seen = trainer(config, base, tmp_path), Remembers()
    start = {key: tensor.clone() for key, tensor in ours.trainable.adapter.tensors().items()}
    before = {key: tensor.clone() for key, tensor in base.unet.state_dict().items()}
    trained = oracle.load(by_role(start))
    ours.run(seen)
    losses = plain_loop(config, oracle.predict, [p.requires_grad_(True) for p in trained.values()], ours)
    state = {resaved_sd3(key): tensor for key, tensor in ours.trainable.adapter.tensors().items()}
    require_equal(case, seen.losses, losses, state, trained)
    moved = {k: (state[resaved_sd3(k)] - t).abs().max() for k, t in start.items() if not k.endswith(CHANCE)}
    assert min(moved.values()) > 1e-3, min(moved, key=moved.get)
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.unet.state_dict().items())


def gradients(base, case, checkpointing, folder):
    """Of one batch, from a start at random: XLabs' of zeros leaves most of them at 0."""
    made = trainer(config_of(case.split()[1], checkpointing=checkpointing), base, folder)
    for parameter in made.trainable.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    base.load(checkpointing)
    made._loss(0).backward()
    return [parameter.grad for parameter in made.trainable.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_activations_computed_twice_give_the_same_gradients(case, tmp_path):
    model = CASES[case]().twin.model
    kept, twice = (
        gradients(TinyTransformerBase(model, parity.lively_encoder()), case, checkpointing, tmp_path)
        for checkpointing in (False, True)
    )
    for one, other in zip(kept, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_chroma_is_trained_through_as_flux_is(tmp_path):
    """Its guidance is 0, whatever the config says."""
    oracle = OfXLabs(chroma=True)
    base = TinyTransformerBase(oracle.twin.model, parity.lively_encoder())
    ours = trainer(config_of("xlabs", guidance=3.5), base, tmp_path)
    generator = torch.Generator().manual_seed(1)
    for parameter in ours.trainable.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator)
    trained = oracle.load(by_role(ours.trainable.adapter.tensors()))
    base.load(False)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    noisy, sigma, features = randn(2, 16, 8, 8), torch.tensor([0.3, 0.8]), randn(2, 48)
    texts = Texts(randn(2, 7, tiny_flux.CONTEXT), randn(2, tiny_flux.POOLED))
    found = base.predict(noisy, sigma, texts, [], ours.trainable(features))
    wanted = oracle.predict(noisy, sigma, texts.context, texts.pooled, features)
    assert (found - wanted).abs().max() < 2e-5
    found.square().mean().backward()
    for parameter in trained.values():
        parameter.requires_grad_(True)
    oracle.predict(noisy, sigma, texts.context, texts.pooled, features).square().mean().backward()
    for key, tensor in dict(ours.trainable.adapter.named_parameters()).items():
        torch.testing.assert_close(tensor.grad, trained[key].grad, rtol=1e-3, atol=1e-7, msg=key)


class FluxPipeline(FluxIPAdapterMixin):
    """As much of a diffusers pipeline as loads an adapter."""

    def __init__(self, transformer):
        self.transformer = transformer


class SD3Pipeline(SD3IPAdapterMixin):
    def __init__(self, transformer):
        self.transformer = transformer


def exported(case, oracle, folder, suffix):
    """Two steps of training, written as by Export."""
    base = TinyTransformerBase(oracle.twin.model, parity.lively_encoder())
    made = trainer(config_of(case.split()[1], steps=2, warmup=0, learning_rate=0.02), base, folder)
    made.run(Remembers())
    return save_adapter(made.trainable.checkpoint("mine"), folder / f"exported{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("case", ["Flux xlabs", "SD3.5 instantx"])
def test_what_is_exported_loads_in_diffusers_and_gives_the_same(case, suffix, tmp_path):
    oracle = CASES[case]()
    path = exported(case, oracle, tmp_path, suffix)
    network = oracle.twin.network
    if case.startswith("Flux"):
        FluxPipeline(network).load_ip_adapter(str(tmp_path), path.name)
        batch = flux_oracle.make_batch((1, 0))
        width = (48,)
    else:
        network.image_proj = None
        pipeline = SD3Pipeline(network)
        pipeline.load_ip_adapter(str(tmp_path), path.name, image_encoder_folder=None)
        pipeline.set_ip_adapter_scale(1.0)
        batch = sd3_oracle.make_batch((1, 0))
        width = (17, 64)
    seen = torch.randn(2, *width, generator=torch.Generator().manual_seed(4))
    theirs = oracle.twin(batch, [seen.flip(0)[:, None] if case.startswith("Flux") else seen.flip(0)])
    adapter = host.load_adapter(path)
    assert adapter.spec.variant is Variant(case.split()[1])
    tokens = adapter.project(Features(seen))
    patched = host.apply_prompt(oracle.twin.model, make_prompt(adapter, tokens[:1], tokens[1:]), 1.0)
    ours = oracle.twin.host(patched, batch)
    assert parity.max_error(ours, theirs, f"exported {case}{suffix}") < 2e-5
    assert (ours - oracle.twin.host(oracle.twin.model, batch)).abs().max() > 1e-3


def test_instantx_of_flux_exported_gives_the_same_as_its_formula(tmp_path):
    oracle = OfInstantX()
    path = exported("Flux instantx", oracle, tmp_path, ".bin")
    adapter = host.load_adapter(path)
    assert adapter.spec.variant is Variant.INSTANTX
    assert torch.load(path, weights_only=True).keys() == {"image_proj", "ip_adapter"}
    seen = torch.randn(1, 48, generator=torch.Generator().manual_seed(4))
    tokens = adapter.project(Features(seen))
    batch = flux_oracle.make_batch()
    patched = host.apply_prompt(oracle.twin.model, make_prompt(adapter, tokens, tokens[:, :0]), 1.0)
    ours = oracle.twin.host(patched, batch)
    theirs = oracle.twin.load_instantx(adapter["ip_adapter"], tokens, 1.0)(batch)
    assert parity.max_error(ours, theirs, "exported Flux instantx") < 2e-5


@pytest.mark.parametrize("case", CASES)
def test_the_keys_are_those_of_the_released_files(case, tmp_path):
    oracle = CASES[case]()
    path = exported(case, oracle, tmp_path, ".safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(path).items()}
    pairs, width = len(host.model_sites(oracle.twin.model)), tiny_flux.WIDTH
    released = {
        "Flux xlabs": lambda: layouts.xlabs(2, width, tiny_flux.CONTEXT, 48, TOKENS),
        "Flux instantx": lambda: layouts.instantx(pairs, width, tiny_flux.CONTEXT, 48, TOKENS),
        "SD3.5 instantx": lambda: layouts.instantx_sd3(pairs, tiny_sd3.WIDTH, 64, TOKENS, tiny_sd3.WIDTH),
    }
    assert shapes == released[case]()


def test_samples_are_made_with_the_adapter_and_leave_training_as_it_was(tmp_path):
    oracle = OfXLabs()
    base = TinyTransformerBase(oracle.twin.model, parity.lively_encoder())
    made = trainer(config_of("xlabs", steps=2, warmup=0, learning_rate=0.05), base, tmp_path)
    made.run(Remembers())
    request = SampleRequest(torch.rand(1, 64, 64, 3), "a picture", 64, seed=1, steps=2)
    before = made._loss(0).detach()
    adapter = made.trainable.checkpoint("now")
    picture = base.sample(adapter, request)
    nothing = Checkpoint("nothing", adapter.image_proj, {k: 0 * t for k, t in adapter.ip_adapter.items()})
    assert picture.shape == (1, 64, 64, 3)
    assert torch.isfinite(picture).all()
    assert not torch.equal(picture, base.sample(nothing, request))
    assert torch.equal(made._loss(0).detach(), before)
