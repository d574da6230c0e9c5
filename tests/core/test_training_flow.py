"""Training for transformers without a host: the flow's objective, what new adapters start from, what fits which family."""

from types import SimpleNamespace

import pytest
import torch
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.families.sd3 import SD3, SD35_LARGE
from image_prompt.ipadapter_core.families.site import Site
from image_prompt.ipadapter_core.families.table import family_of
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.export import save_adapter
from image_prompt.ipadapter_core.training.flow import Flow
from image_prompt.ipadapter_core.training.kinds import kinds_for, token_count
from image_prompt.ipadapter_core.training.trainable import new_trainable, trainable_from
from torch import nn

WIDTH, TEXT, FEATURES = 32, 24, 48
FLUX = tuple(
    Site(f"{stage} {n}", stage, 2 * late + n, 0, WIDTH, 0, 2, f"{stage}_blocks.{n}", "Flux")
    for late, stage in enumerate(("double", "single"))
    for n in range(2)
)
SD3_SITES = tuple(
    Site(f"joint {n}", "joint", n, 0, 128, 0, 2, f"joint_blocks.{n}", SD3.name) for n in range(3)
)
NETWORK = SimpleNamespace(txt_in=nn.Linear(TEXT, WIDTH))
CASES = {"xlabs": FLUX, "instantx": FLUX, "instantx of SD3.5": SD3_SITES}


def config_of(case, **more):
    return TrainingConfig.from_dict({"kind": case.split()[0], "tokens": 4, **more})


def made(case, **more):
    return new_trainable(config_of(case, **more), NETWORK, CASES[case], FEATURES)


def test_noise_comes_in_a_straight_line_and_the_velocity_is_its_slope():
    flow, generator = Flow(lambda t: t), torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 16, 4, 4, generator=generator) for _ in range(2))
    sigma = torch.tensor([0.25, 0.75])
    noised, target = flow.noised(latents, noise, sigma), flow.target(latents, noise, sigma)
    torch.testing.assert_close(noised[0], 0.75 * latents[0] + 0.25 * noise[0])
    further = flow.noised(latents, noise, sigma + 0.125)
    torch.testing.assert_close((further - noised) / 0.125, target, rtol=0, atol=1e-5)
    # from x along v back to the picture, as the host's model_sampling does it
    torch.testing.assert_close(noised - sigma.view(-1, 1, 1, 1) * target, latents, rtol=0, atol=1e-5)
    assert Flow(lambda t: t, 1000.0).timesteps(sigma).tolist() == [250, 750]
    assert flow.weights(sigma, config_of("xlabs")) is None


@pytest.mark.parametrize("case", CASES)
def test_a_new_adapter_is_one_of_its_kind(case, tmp_path):
    trainable = made(case)
    path = save_adapter(trainable.checkpoint("new"), tmp_path / "new.safetensors")
    spec = Adapter(read_checkpoint(path)).spec
    assert (spec.variant.value, spec.tokens, spec.feature_width) == (case.split()[0], 4, FEATURES)
    assert len(spec.site_keys) == (2 if case == "xlabs" else len(CASES[case]))
    assert all(parameter.requires_grad for parameter in trainable.parameters())
    again = read_checkpoint(path)
    assert all(
        torch.equal(again.state_dict()[k], t) for k, t in trainable.checkpoint("").state_dict().items()
    )


def test_xlabs_starts_from_zeros_and_its_projection_does_not():
    state = made("xlabs").adapter.tensors()
    pairs = {key: tensor for key, tensor in state.items() if key.startswith("ip_adapter.")}
    assert len(pairs) == 2 * 2 * 2
    assert not any(tensor.any() for tensor in pairs.values())
    other = made("xlabs", seed=1).adapter.tensors()["image_proj.proj.weight"]
    assert state["image_proj.proj.weight"].any()
    assert not torch.equal(state["image_proj.proj.weight"], other)


def test_instantx_of_sd3_starts_with_norms_of_one():
    state = made("instantx of SD3.5").adapter.tensors()
    norms = [
        tensor for key, tensor in state.items() if "norm_q" in key or "norm_k" in key or "norm_ip_k" in key
    ]
    assert len(norms) == 3 * 3
    assert all((tensor == 1).all() for tensor in norms)
    assert 0.5 < state["image_proj.latents"].std() * 128**0.5 < 1.5


def test_the_released_resampler_of_sd3_is_1280_wide():
    assert SD35_LARGE.resampler_width == 1280


def test_tokens_are_those_of_released_adapters():
    counts = {
        case: token_count(config_of(case, tokens=None), family_of(sites)) for case, sites in CASES.items()
    }
    assert counts == {"xlabs": 4, "instantx": 128, "instantx of SD3.5": 64}
    assert token_count(TrainingConfig(Variant.FULL), family_of(FLUX)) is None


def test_kinds_are_those_of_the_family():
    assert kinds_for(family_of(FLUX)) == (Variant.XLABS, Variant.INSTANTX)
    assert kinds_for(family_of(SD3_SITES)) == (Variant.INSTANTX,)


@pytest.mark.parametrize("case", CASES)
def test_a_timed_adapter_gives_each_row_the_keys_of_its_own_timestep(case):
    trainable, generator = made(case), torch.Generator().manual_seed(2)
    for parameter in trainable.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    features = torch.randn(2, *((5,) if trainable.timed else ()), FEATURES, generator=generator)
    times = torch.tensor([100.0, 900.0])
    if not trainable.timed:
        assert len(trainable(features)) == len(trainable.adapter.spec.site_keys)
        return
    both = trainable(features, times)
    for n in range(2):
        alone = trainable.adapter.keys_values_at(features[n : n + 1], times[n : n + 1], torch.float32)
        for ours, theirs in zip(both[:2], alone, strict=True):
            torch.testing.assert_close(ours[:, n : n + 1], theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both.keys[:, 0], trainable(features, times.flip(0)).keys[:, 0])


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_trained_further_with_other_tokens(case):
    file = made(case).checkpoint("mine")
    more = trainable_from(file, config_of(case, tokens=6), CASES[case])
    assert more.adapter.spec.tokens == 6
    fewer = trainable_from(file, config_of(case, tokens=2), CASES[case])
    assert fewer.adapter.spec.tokens == 2
    same = trainable_from(file, config_of(case), CASES[case]).checkpoint("mine").state_dict()
    assert all(torch.equal(tensor, file.state_dict()[key]) for key, tensor in same.items())


def test_a_file_of_another_kind_is_a_sentence():
    file = made("xlabs").checkpoint("mine")
    with pytest.raises(
        MismatchError, match="mine is a xlabs adapter of 4 tokens, but the settings train instantx with 4"
    ):
        trainable_from(file, config_of("instantx"), FLUX)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"logit_mean": 11}, "logit_mean is 11"),
        ({"logit_std": -1}, "logit_std is -1"),
        ({"guidance": -1}, "guidance is -1"),
        ({"timesteps": "mode"}, "auto, uniform, logit-normal"),
    ],
)
def test_settings_that_cannot_work_are_sentences(settings, said):
    with pytest.raises(SettingError, match=said):
        TrainingConfig.from_dict(settings)
