"""Training for Flux and SD3.5 in any host: on the stand-in transformers, beside their formulas written plainly."""

import copy

import pytest
import torch
from helpers import plain_transformers
from helpers.training import Remembers, TinyBase
from helpers.transformer_training import (
    TinyTransformerBase,
    config_of,
    install_hooks,
    plain_loop,
    require_equal,
    stand_in,
    trainer,
)
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.spec import Unconditional, Variant
from image_prompt.ipadapter_core.training.config import Timesteps, TrainingConfig
from image_prompt.ipadapter_core.training.noise import batch_noise
from scipy.stats import kstest
from support import parity, tiny

CASES = ["Flux xlabs", "Flux instantx", "SD3.5 instantx"]


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    install_hooks(monkeypatch)


def base_of(case):
    return TinyTransformerBase(stand_in(case.split()[0]), parity.lively_encoder())


def plain_predict(case, network, trainable):
    """Of a copy of the adapter, whose K' and V' stand in the formula."""
    if case.startswith("Flux"):
        return lambda x, sigma, context, pooled, features: plain_transformers.flux(
            network, x, sigma, context, trainable(features)
        )
    return lambda x, sigma, context, pooled, features: plain_transformers.joint(
        network, x, 2 * sigma, context, trainable(features, 2 * sigma)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_run_equals_a_plain_loop(case, tmp_path):
    config, base = config_of(case.split()[1]), base_of(case)
    ours, seen = trainer(config, base, tmp_path), Remembers()
    theirs = copy.deepcopy(ours.trainable)
    network = copy.deepcopy(base.model.model.diffusion_model)
    ours.run(seen)
    losses = plain_loop(config, plain_predict(case, network, theirs), list(theirs.parameters()), ours)
    require_equal(case, seen.losses, losses, ours.trainable.adapter.tensors(), theirs.adapter.tensors())


def gradients(case, checkpointing):
    base = base_of(case)
    config = config_of(case.split()[1], checkpointing=checkpointing, seed=3)
    made = trainer(config, base, None)
    for parameter in made.trainable.parameters():  # XLabs' start of zeros would leave most gradients at 0
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    base.load(checkpointing)
    loss = made._loss(0)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in made.trainable.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_activations_computed_twice_give_the_same_gradients(case):
    (loss, kept), (again, twice) = gradients(case, False), gradients(case, True)
    assert torch.equal(loss, again)
    for one, other in zip(kept, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_no_image_is_what_the_authors_have(case):
    base, kind = base_of(case), Variant(case.split()[1])
    nothing, black = base.no_features(kind), base.features(kind, torch.zeros(1, 8, 8, 3))
    if kind is Variant.XLABS:
        assert base._reading(kind).unconditional is Unconditional.BLACK_PICTURE
        assert torch.equal(nothing, black)
        assert black.abs().max() > 0
    else:
        assert nothing.shape == black.shape
        assert not nothing.any()


@pytest.mark.parametrize(
    ("case", "settings", "said"),
    [
        ("Flux", {"kind": "base"}, "kind is base, and the model is .* xlabs or instantx"),
        ("SD3.5", {"kind": "xlabs"}, "adapters are instantx"),
        ("Flux", {"kind": "xlabs", "min_snr": 5}, "min_snr is 5, which weights .* Set min_snr to 0"),
    ],
)
def test_what_does_not_fit_the_family_is_a_sentence(case, settings, said):
    with pytest.raises(SettingError, match=said):
        base_of(case).compute_in(TrainingConfig.from_dict(settings))


def test_a_unet_takes_neither_these_kinds_nor_their_timesteps(encoder):
    base = TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)
    with pytest.raises(SettingError, match=r"kind is xlabs, and the model is SD1.5"):
        base.compute_in(TrainingConfig(Variant.XLABS))
    with pytest.raises(SettingError, match=r"timesteps is uniform, which is for models of a flow"):
        base.compute_in(TrainingConfig(timesteps=Timesteps.UNIFORM))


def test_a_model_that_reads_more_than_latents_is_a_sentence():
    model = stand_in("Flux")
    model.model.diffusion_model.img_in = torch.nn.Linear(384, 32)
    with pytest.raises(MismatchError, match="reads 96 channels where its latents have 16"):
        TinyTransformerBase(model, parity.lively_encoder())


@pytest.mark.parametrize("case", CASES)
def test_timesteps_are_drawn_as_the_family_has_them_and_shifted_by_the_model(case):
    base = base_of(case)

    def drawn(**settings):
        config = config_of(case.split()[1], **settings)
        sigmas = batch_noise(config, 0, (4000, 1, 1, 1), base.diffusion.times(config)).timesteps
        assert 0 < sigmas.min() < sigmas.max() < 1
        return sigmas, sigmas / (3 - 2 * sigmas)  # the stand-in's shift, taken back

    assert kstest(drawn(timesteps="uniform")[1], "uniform").pvalue > 0.01
    logits = drawn(timesteps="logit-normal", logit_mean=0.5, logit_std=0.8)[1].logit()
    assert kstest(logits, "norm", (0.5, 0.8)).pvalue > 0.01
    own = "uniform" if case.startswith("Flux") else "logit-normal"
    assert torch.equal(drawn()[0], drawn(timesteps=own)[0])
