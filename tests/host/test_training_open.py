"""Training for transformers for which nobody released an adapter: Qwen-Image, Z-Image, Lumina 2."""

import copy

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from helpers import plain_transformers
from helpers.beside import has_hooks
from helpers.training import Remembers
from helpers.transformer_training import (
    TinyOpenBase,
    config_of,
    install_hooks,
    plain_loop,
    require_equal,
    stand_in,
    trainer,
)
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.families.table import family_of
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.base import SampleRequest, Texts
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.trainable import trainable_from
from safetensors import safe_open
from support import parity, tiny, tiny_open
from torch import nn

OVERRIDE = "optimized_attention_override"


@pytest.fixture(params=["qwen", "z-image"])
def family(request):
    return request.param


@pytest.fixture(params=[pytest.param("host", marks=has_hooks), "stand-in"])
def model(request, family, monkeypatch):
    """A small random model; the host's own where the host says which block runs."""
    if request.param == "stand-in":
        install_hooks(monkeypatch)
        return stand_in(family)
    if family == "z-image" and not tiny_open.numbers_blocks():
        pytest.skip("this host does not say which block runs")
    return tiny_open.KINDS[family].make()


def base_of(model):
    return TinyOpenBase(model, parity.lively_encoder())


# --- the numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_a_run_equals_a_plain_loop_on_the_stand_in(kind, family, monkeypatch, tmp_path):
    install_hooks(monkeypatch)
    config, base = config_of(kind, steps=30), base_of(stand_in(family))
    ours, seen = trainer(config, base, tmp_path), Remembers()
    theirs = copy.deepcopy(ours.trainable)
    network = copy.deepcopy(base.model.model.diffusion_model)

    def predict(x, sigma, context, pooled, features):
        rows = zip(x.split(1), sigma.split(1), context, features.split(1), strict=True)
        made = [
            plain_transformers.generic(network, x, s, text[None], theirs(seen)) for x, s, text, seen in rows
        ]
        return torch.cat(made)

    ours.run(seen)
    losses = plain_loop(config, predict, list(theirs.parameters()), ours)
    require_equal(
        f"{family} {kind}", seen.losses, losses, ours.trainable.adapter.tensors(), theirs.adapter.tensors()
    )


def gradients(model, checkpointing):
    base = base_of(model)
    made = trainer(config_of("base", checkpointing=checkpointing, batch_size=4, seed=3), base, None)
    base.load(checkpointing)
    loss = made._loss(0)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in made.trainable.parameters()]


def test_activations_computed_twice_give_the_same_gradients(model):
    (loss, kept), (again, twice) = gradients(model, False), gradients(model, True)
    assert torch.equal(loss, again)
    assert all(gradient.abs().max() > 1e-6 for gradient in kept)
    for one, other in zip(kept, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_a_batch_of_texts_of_several_lengths_is_each_row_alone(model):
    base = base_of(model)
    made = trainer(config_of("base"), base, None)
    base.load(False)
    generator = torch.Generator().manual_seed(5)
    noisy, sigma = torch.randn(3, 16, 8, 8, generator=generator), torch.tensor([0.2, 0.5, 0.9])
    captions, features = ["", "a cat", "a dog."], torch.randn(3, 48, generator=generator)
    texts = base.texts(captions)
    assert len(set(texts.lengths.tolist())) == 3
    with torch.no_grad():
        together = base.predict(noisy, sigma, texts, [], made.trainable(features))
        alone = [
            base.predict(
                noisy[n : n + 1],
                sigma[n : n + 1],
                base.texts([captions[n]]),
                [],
                made.trainable(features[n : n + 1]),
            )
            for n in range(3)
        ]
        other = base.predict(
            noisy, sigma, Texts(texts.context, None, texts.lengths.flip(0)), [], made.trainable(features)
        )
    assert (together - torch.cat(alone)).abs().max() < 2e-5
    assert (together - other).abs().max() > 1e-4


def test_text_has_the_hosts_attention_with_a_backward_pass(model, monkeypatch):
    """Whatever the user chose: the override of training stands beneath the prompts, at each block."""
    calls = []
    plain = host_attention.attention_pytorch
    monkeypatch.setattr(
        host_attention, "attention_pytorch", lambda *given, **more: calls.append(1) or plain(*given, **more)
    )
    base = base_of(model)
    made = trainer(config_of("base", batch_size=1), base, None)
    base.load(False)
    calls.clear()
    made._loss(0).backward()
    assert len(calls) >= len(base.sites)


# --- the whole way -----------------------------------------------------------------------------------------------


def trained(model, folder, kind="base", **more):
    base, seen = base_of(model), Remembers()
    config = config_of(
        kind,
        **{"steps": 60, "warmup": 0, "learning_rate": 0.02, "drop_image": 0.0, "drop_both": 0.0, **more},
    )
    made = trainer(config, base, folder)
    made.base.load(False)
    made.before = mean_loss(made)
    made.run(seen)
    return made, seen


@torch.no_grad()
def mean_loss(made):
    """On the same noise and timesteps each time."""
    return sum(made._loss(number).item() for number in range(8)) / 8


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_the_loss_falls_and_the_saved_file_is_applied(kind, model, family, tmp_path):
    before = {key: tensor.clone() for key, tensor in model.model.diffusion_model.state_dict().items()}
    made, seen = trained(model, tmp_path, kind)
    after = mean_loss(made)
    print(f"{family} {kind}: loss {made.before:.3f} before, {after:.3f} after")
    assert after < 0.97 * made.before
    now = model.model.diffusion_model.state_dict()
    assert all(torch.equal(tensor, now[key]) for key, tensor in before.items())
    adapter = host.load_adapter(seen.files[-1])
    assert adapter.spec.variant is Variant(kind)
    assert adapter.spec.entry.architecture == made.base.architecture.name
    host.check_model(model, adapter)
    with safe_open(seen.files[-1], "pt") as file:
        note = file.metadata()
    assert note["image_prompt_model"] == family_of(made.base.sites).name
    assert note["image_prompt_sites"].startswith(f"{len(made.base.sites)}:")
    assert "softmax(q K'^T" in note["image_prompt_formula"]
    assert "image_prompt_training" in note


@has_hooks
def test_what_is_applied_has_the_numbers_of_training_and_weight_0_changes_no_bit(family, tmp_path):
    if family == "z-image" and not tiny_open.numbers_blocks():
        pytest.skip("this host does not say which block runs")
    kind = tiny_open.KINDS[family]
    model = kind.make()
    made, seen = trained(model, tmp_path, steps=10)
    adapter = host.load_adapter(seen.files[-1])
    prompt = host.encode_prompt(adapter, made.base.clip_vision, host.Reference(tiny.picture(1, 64, 64)))
    plain, steered, nothing = (
        tiny_open.sample(each, cfg=3.0, kind=kind)
        for each in (model, host.apply_prompt(model, prompt, 1.0), host.apply_prompt(model, prompt, 0.0))
    )
    assert torch.equal(nothing, plain)
    assert (steered - plain).norm() > 1e-3 * plain.norm()
    assert _applied(made, prompt, kind) < 2e-5


def _applied(made, prompt, kind):
    """The largest difference of one denoised latent from what training predicts."""
    base = made.base
    generator, sigma = torch.Generator().manual_seed(8), torch.tensor([0.6])
    noisy = torch.randn(1, 16, 8, 12, generator=generator)
    texts = base.texts(["a cat"])
    features = base.features(made.config.kind, tiny.picture(1, 64, 64))
    base.load(False)
    with torch.no_grad():
        trained_to = base.predict(noisy, sigma, texts, [], made.trainable(features))
    found = []
    import comfy.sample
    import comfy.samplers

    def keep(x):
        found.append(x["denoised"])

    patched = host.apply_prompt(base.model, prompt, 1.0)
    shape = kind.latent(1, (8, 12))
    condition = [[texts.context, {}]]
    comfy.sample.sample_custom(
        patched,
        torch.zeros(shape),
        1.0,
        comfy.samplers.ksampler("euler"),
        torch.cat((sigma, torch.zeros(1))),
        condition,
        condition,
        base.model.model.process_latent_out(noisy.view(shape) / (1 - sigma)),
        callback=lambda step, denoised, x, steps: keep({"denoised": denoised}),
        disable_pbar=True,
    )
    denoised = noisy - sigma * trained_to
    return (found[0].flatten(1, -3) - denoised).abs().max()


def test_a_run_is_resumed_to_the_same_bits(model, tmp_path):
    whole, _ = trained(model, tmp_path / "whole", steps=6)
    half = trainer(whole.config, base_of(model), tmp_path / "half")
    half.run(Remembers(stop_after=3))
    again = trainer(whole.config, base_of(model), tmp_path / "half")
    assert again.resume() == 3
    again.run(Remembers())
    ours, theirs = (each.trainable.adapter.tensors() for each in (again, whole))
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_a_file_is_trained_further(model, tmp_path):
    made, seen = trained(model, tmp_path, steps=2)
    file = read_checkpoint(seen.files[-1])
    again = trainable_from(file, config_of("base", tokens=6), made.base.sites)
    assert again.adapter.spec.tokens == 6
    same = trainable_from(file, made.config, made.base.sites).adapter.tensors()
    assert all(torch.equal(same[k], t) for k, t in made.trainable.adapter.tensors().items())


@has_hooks
def test_samples_are_made_with_the_adapter(family, tmp_path):
    if family == "z-image" and not tiny_open.numbers_blocks():
        pytest.skip("this host does not say which block runs")
    made, _ = trained(tiny_open.KINDS[family].make(), tmp_path, steps=3)
    request = SampleRequest(torch.rand(1, 64, 64, 3), "a picture", 64, seed=1, steps=2)
    before = made._loss(0).detach()
    picture = made.base.sample(made.trainable.checkpoint("now"), request)
    for parameter in made.trainable.adapter.ip_adapter.parameters():
        nn.init.zeros_(parameter)
    nothing = made.base.sample(made.trainable.checkpoint("nothing"), request)
    assert picture.shape == (1, 64, 64, 3)
    assert torch.isfinite(picture).all()
    assert not torch.equal(picture, nothing)
    assert before != made._loss(0).detach()


# --- what the host gives and what it is asked for ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_what_is_trained_on_is_what_encode_gives(kind, model, tmp_path):
    made, seen = trained(model, tmp_path, kind, steps=1)
    adapter, base, picture = host.load_adapter(seen.files[-1]), made.base, tiny.picture(3, 40, 64)
    wanted = host.encode_images(base.clip_vision, adapter.spec, host.Reference(picture))
    assert torch.equal(base.features(Variant(kind), picture), wanted)
    nothing = host.no_image_features(base.clip_vision, adapter.spec, wanted)
    torch.testing.assert_close(base.no_features(Variant(kind)), nothing, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "xlabs"}, "adapters are base or plus"),
        ({"kind": "faceid"}, "adapters are base or plus"),
        ({"kind": "base", "min_snr": 5}, "min_snr is 5, which weights .* Set min_snr to 0"),
    ],
)
def test_what_does_not_fit_the_family_is_a_sentence(settings, said, model):
    with pytest.raises(SettingError, match=said):
        base_of(model).compute_in(TrainingConfig.from_dict(settings))
