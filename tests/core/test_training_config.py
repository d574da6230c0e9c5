"""What decides a training run: the config, its draws, its batches. All of it functions of seed and number."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.batches import BatchSampler, buckets, crop_info
from image_prompt.ipadapter_core.training.config import Schedule, TrainingConfig
from image_prompt.ipadapter_core.training.noise import batch_noise, permutation
from image_prompt.ipadapter_core.training.objective import Diffusion
from scipy.stats import chisquare, kstest

SHAPE = (8, 4, 6, 5)


def test_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.learning_rate, config.weight_decay, config.schedule) == (1e-4, 0.01, Schedule.CONSTANT)
    assert (config.drop_text, config.drop_image, config.drop_both) == (0.05, 0.05, 0.05)
    assert (config.ema, config.warmup, config.noise_offset, config.max_grad_norm) == (0, 0, 0, 0)
    assert config.token_count == 4
    assert TrainingConfig(kind=Variant.PLUS).token_count == 16


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"drop_text": 1.5}, "from 0 to 1"),
        ({"drop_text": 0.5, "drop_image": 0.5, "drop_both": 0.5}, "add up to 1.5"),
        ({"kind": "faceid plus"}, "base or plus or full or faceid"),
        ({"kind": "bse"}, "kind is 'bse'"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"steps": math.inf}, "steps is inf"),
        ({"seed": math.nan}, "seed is nan"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"checkpointing": "yes"}, "checkpointing is 'yes'"),
        ({"schedule": "cosin"}, "constant, linear, cosine"),
        ({"learning_rte": 1}, "has no learning_rte"),
    ],
)
def test_what_cannot_work_is_told(settings, told):
    with pytest.raises(SettingError, match=told):
        TrainingConfig.from_dict(settings)


def test_a_recipe_survives_json():
    config = TrainingConfig(Variant.PLUS, 8, schedule=Schedule.COSINE, checkpointing=True)
    assert TrainingConfig.from_dict(config.to_dict()) == config


def test_to_go_on_only_the_number_of_steps_may_differ():
    config = TrainingConfig()
    assert config.differences(replace(config, steps=7)) == []
    assert config.differences(replace(config, seed=7)) == ["seed was 0 and is 7"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447, 0]),
    ],
)
def test_the_rate_rises_and_follows_its_schedule(schedule, rates):
    config = TrainingConfig.from_dict({"schedule": schedule, "warmup": 2, "steps": 6, "learning_rate": 1.0})
    assert [config.lr_at(step) for step in range(7)] == pytest.approx(rates, abs=1e-6)


# --- draws -------------------------------------------------------------------------------------------------------


def test_draws_depend_on_seed_and_number_alone():
    one, again, next_, other = (
        batch_noise(TrainingConfig(seed=seed), batch, SHAPE, 1000)
        for seed, batch in ((1, 5), (1, 5), (1, 6), (2, 5))
    )
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.timesteps, again.timesteps)
    for different in (next_, other):
        assert not torch.equal(one.noise, different.noise)


def dropped(config: TrainingConfig, count: int) -> Counter:
    drawn = [batch_noise(config, batch, (500, 1, 1, 1), 1000) for batch in range(count // 500)]
    return Counter(
        pair for d in drawn for pair in zip(d.drop_text.tolist(), d.drop_image.tolist(), strict=True)
    )


@pytest.mark.parametrize("rates", [(0.05, 0.05, 0.05), (0.1, 0.3, 0.2), (0.0, 0.5, 0.0)])
def test_conditions_are_dropped_as_often_as_asked(rates):
    """Chi-square: text alone, image alone, both, neither."""
    text, image, both = rates
    seen = dropped(TrainingConfig(drop_text=text, drop_image=image, drop_both=both), 40_000)
    counts = [seen[pair] for pair in ((True, False), (False, True), (True, True), (False, False))]
    expected = [40_000 * rate for rate in (*rates, 1 - sum(rates))]
    asked = [(c, e) for c, e in zip(counts, expected, strict=True) if e]
    assert sum(c for c, _ in asked) == 40_000
    assert chisquare(*zip(*asked, strict=True)).pvalue > 0.001


def test_timesteps_are_uniform_and_noise_is_normal():
    drawn = [batch_noise(TrainingConfig(), batch, (500, 1, 2, 2), 1000) for batch in range(40)]
    times = torch.cat([d.timesteps for d in drawn])
    assert times.min() >= 0
    assert times.max() < 1000
    assert chisquare(torch.bincount(times // 50, minlength=20)).pvalue > 0.001
    assert kstest(torch.cat([d.noise for d in drawn]).flatten(), "norm").pvalue > 0.001


def test_a_noise_offset_moves_whole_channels():
    plain, moved = (
        batch_noise(TrainingConfig(noise_offset=offset), 3, SHAPE, 1000).noise for offset in (0.0, 0.5)
    )
    shift = moved - plain
    assert torch.allclose(shift, shift[..., :1, :1].expand_as(shift), atol=1e-6)
    assert 0.2 < shift[..., 0, 0].std() < 1.0


# --- the objective -----------------------------------------------------------------------------------------------


def diffusion(v: bool) -> Diffusion:
    return Diffusion(torch.linspace(0.99, 0.01, 10), v)


def test_noised_latents_keep_their_variance_and_the_target_is_the_noise():
    x, noise, times = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 5.0), torch.tensor([0, 9])
    got = diffusion(False).noised(x, noise, times).flatten().tolist()
    assert got == pytest.approx([3 * 0.99**0.5 + 5 * 0.01**0.5, 3 * 0.01**0.5 + 5 * 0.99**0.5])
    assert diffusion(False).target(x, noise, times) is noise


def test_v_and_the_noisy_latents_give_both_back():
    """x_0 = alpha x_t - sigma v, eps = sigma x_t + alpha v (arXiv 2202.00512)."""
    x, noise, times = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2), torch.tensor([0, 3, 6, 9])
    model = diffusion(True)
    noisy, v = model.noised(x, noise, times), model.target(x, noise, times)
    alpha = model.alphas_cumprod[times].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    torch.testing.assert_close(alpha * noisy - sigma * v, x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sigma * noisy + alpha * v, noise, atol=1e-5, rtol=1e-5)


# --- batches -----------------------------------------------------------------------------------------------------


def test_an_epoch_shows_every_picture_and_batches_are_of_one_size():
    sizes = [(64, 64)] * 10 + [(64, 128)] * 7
    plan = BatchSampler(TrainingConfig(seed=3), sizes, 4)
    assert plan.length == 3 + 2
    epoch = [plan.batch(number) for number in range(plan.length)]
    assert all(len(batch) == 4 and len({sizes[n] for n in batch}) == 1 for batch in epoch)
    assert {n for batch in epoch for n in batch} == set(range(17))
    assert epoch != [plan.batch(plan.length + number) for number in range(plan.length)]
    assert epoch == [
        BatchSampler(TrainingConfig(seed=3), sizes, 4).batch(number) for number in range(plan.length)
    ]


def test_fewer_pictures_than_a_batch_are_shown_several_times():
    shown = Counter(BatchSampler(TrainingConfig(), [(64, 64)] * 3, 8).batch(0))
    assert sorted(shown.values()) == [2, 3, 3]


def test_orders_differ_by_epoch_and_lose_nothing():
    first, second = (permutation(TrainingConfig(), epoch, 50).tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_no_picture_is_an_error():
    with pytest.raises(SettingError, match="no picture"):
        BatchSampler(TrainingConfig(), [], 4)


@pytest.mark.parametrize("own", [(512, 512), (700, 500), (300, 900), (1, 4000), (513, 511)])
def test_a_picture_covers_its_bucket_and_is_cut_at_the_centre(own):
    choices = buckets(512)
    made = crop_info(own, choices)
    assert made.bucket in choices
    for side in (0, 1):
        assert made.resized[side] >= made.bucket[side]
        assert made.top_left[side] == (made.resized[side] - made.bucket[side]) // 2
    assert made.resized[0] == made.bucket[0] or made.resized[1] == made.bucket[1]


def test_buckets_are_of_about_the_same_area_in_whole_steps():
    for height, width in buckets(512):
        assert height % 64 == width % 64 == 0
        assert 0.75 <= height * width / 512**2 <= 1
        assert max(height / width, width / height) <= 2


def test_the_square_alone_is_the_reference():
    """Shortest side to 512, centre crop (tutorial_train.py)."""
    made = crop_info((600, 900), [(512, 512)])
    assert (made.resized, made.top_left) == ((512, 768), (0, 128))
