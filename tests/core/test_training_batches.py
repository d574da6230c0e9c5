"""Batches of data sets with shares, pictures shown in several ways, and what is weighted: functions of seed and number."""

import math
from collections import Counter

import pytest
import torch
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.training.batches import BatchSampler, Crops, crop_info
from image_prompt.ipadapter_core.training.config import HELP, TrainingConfig
from image_prompt.ipadapter_core.training.noise import batch_views, latents_noise
from image_prompt.ipadapter_core.training.objective import Diffusion, loss_of
from scipy.stats import chisquare

SQUARE = (64, 64)


def epoch(sampler: BatchSampler, number: int) -> Counter:
    first = number * sampler.length
    return Counter(n for batch in range(first, first + sampler.length) for n in sampler.batch(batch))


def test_a_data_set_is_shown_as_often_as_its_share_says():
    sampler = BatchSampler(TrainingConfig(), [SQUARE] * 12, 4, [1.0] * 4 + [3.0] * 4 + [0.5] * 4)
    assert sampler.length == (4 + 12 + 2) / 4 + 0.5
    seen = [epoch(sampler, number) for number in range(40)]
    for shown in seen:
        # the last batch is filled up with two more
        assert sum(shown.values()) == 20
        assert all(shown[n] >= 1 for n in range(4))
        assert all(shown[n] >= 3 for n in range(4, 8))
        assert sum(shown[n] > 0 for n in range(8, 12)) == 2
    # which half it is changes
    assert len({frozenset(n for n in range(8, 12) if shown[n]) for shown in seen}) > 2


def test_without_shares_batches_are_what_they_were():
    """Those of the version that had no shares, by its own list of the first epoch."""
    sampler = BatchSampler(TrainingConfig(seed=3), [SQUARE] * 5 + [(64, 128)] * 3, 2)
    equal = BatchSampler(TrainingConfig(seed=3), [SQUARE] * 5 + [(64, 128)] * 3, 2, [1.0] * 8)
    batches = [sampler.batch(number) for number in range(10)]
    assert batches == [equal.batch(number) for number in range(10)]
    assert batches[:5] == BEFORE


# of commit 769c2e4: BatchSampler(TrainingConfig(seed=3), [(64, 64)] * 5 + [(64, 128)] * 3, 2).batch(0..4)
BEFORE = [[0, 2], [7, 5], [4, 1], [6, 7], [3, 4]]


def test_shares_that_leave_nothing_are_an_error():
    with pytest.raises(SettingError, match="leave no picture"):
        BatchSampler(TrainingConfig(), [SQUARE], 2, [0.1])


def test_crops_are_worked_out_when_they_are_asked_for():
    sizes = [(64, 64), (100, 200), (64, 64)]
    assert list(Crops(sizes, [SQUARE])) == [crop_info(size, [SQUARE]) for size in sizes]


def test_random_places_lie_inside_the_picture_and_are_few():
    crop = crop_info((100, 300), [SQUARE])
    places = {crop.at_place(place, 4, 1).top_left for place in range(4)}
    assert 1 < len(places) <= 4
    assert all(0 <= left <= crop.resized[1] - 64 and top == 0 for top, left in places)
    assert crop.at_place(0, 1, 1) is crop
    assert crop.at_place(2, 4, 1) == crop.at_place(2, 4, 1)
    assert {crop.at_place(place, 4, 2).top_left for place in range(4)} != places


def test_views_are_drawn_as_asked():
    """Chi-square: half of them mirrored, places and captions equally often."""
    config = TrainingConfig.from_dict({"flip": True, "crops": 3, "captions": "random"})
    views = [view for batch in range(40) for view in batch_views(config, batch, 100)]
    assert chisquare([sum(view.flip for view in views), sum(not view.flip for view in views)]).pvalue > 0.001
    assert chisquare([sum(view.place == n for view in views) for n in range(3)]).pvalue > 0.001
    captions = [int((view.caption or 0) * 4) for view in views]
    assert chisquare([captions.count(n) for n in range(4)]).pvalue > 0.001
    assert views[:100] == batch_views(config, 0, 100)
    plain = batch_views(TrainingConfig(), 0, 100)
    assert {(view.flip, view.place, view.caption) for view in plain} == {(False, 0, None)}


def test_latents_are_drawn_anew_in_every_batch():
    first, again, other = (latents_noise(TrainingConfig(), batch, (2, 4, 8, 8)) for batch in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("v", [False, True])
def test_min_snr_weights_are_those_of_its_paper(v):
    """min(SNR, gamma) / SNR for the noise, / (SNR + 1) for v (arXiv 2303.09556, section 3.4)."""
    diffusion = Diffusion(torch.tensor([0.99, 0.5, 0.1]), v)
    snr = [0.99 / 0.01, 1.0, 0.1 / 0.9]
    wanted = [min(each, 5.0) / (each + 1 if v else each) for each in snr]
    assert diffusion.min_snr_weights(torch.tensor([0, 1, 2]), 5.0).tolist() == pytest.approx(wanted, rel=1e-5)
    assert all(map(math.isfinite, Diffusion(torch.tensor([0.0]), v).min_snr_weights(torch.tensor([0]), 5.0)))


def test_weights_of_one_change_no_loss():
    a, b = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    torch.testing.assert_close(loss_of(a, b, torch.ones(3)), loss_of(a, b))
    torch.testing.assert_close(loss_of(a, b, torch.tensor([3.0, 0, 0])), loss_of(a[:1], b[:1]))


def test_every_setting_has_its_line():
    assert list(HELP) == list(TrainingConfig().to_dict())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": "prodigy"}, "Set learning_rate to 1"),
        ({"optimizer": "prodigy", "learning_rate": 1.0, "projection_rate": 0.1}, "one rate for all"),
        ({"kind": "full", "tokens": 4}, "Leave tokens out"),
        ({"crops": 0}, "crops is 0"),
        ({"min_snr": -1.0}, "min_snr is -1"),
        ({"optimizer": "sgd"}, "adamw, adamw-fused, adamw-8bit, prodigy"),
    ],
)
def test_what_cannot_work_is_told(settings, told):
    with pytest.raises(SettingError, match=told):
        TrainingConfig.from_dict(settings)


def test_two_rates_follow_one_schedule():
    config = TrainingConfig.from_dict({"warmup": 2, "learning_rate": 1.0, "steps": 4, "schedule": "linear"})
    assert [config.lr_at(step, 0.5) for step in range(4)] == [config.lr_at(step) / 2 for step in range(4)]
