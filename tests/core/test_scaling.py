"""Embeds scalings: what a weight multiplies, by the formulas."""

import pytest
import torch
from core.small import randn
from image_prompt.ipadapter_core.scaling import Scaling, scaled

KEYS, VALUES = randn(2, 6, 640), randn(2, 6, 640, seed=1)
P = 640 / 1280


def test_v_only_is_equation_8():
    keys, values = scaled(KEYS, VALUES, 0.7, Scaling.V_ONLY, 6)
    assert keys is KEYS
    assert torch.equal(values, VALUES * 0.7)


def test_k_and_v():
    keys, values = scaled(KEYS, VALUES, -0.7, Scaling.KEYS_TOO, 6)
    assert torch.equal(keys, KEYS * -0.7)
    assert torch.equal(values, VALUES * -0.7)


def test_the_penalty_is_the_width_over_1280():
    keys, values = scaled(KEYS, VALUES, 0.7, Scaling.PENALTY, 6)
    torch.testing.assert_close(keys, KEYS * 0.7 * P)
    torch.testing.assert_close(values, VALUES * 0.7 * P)


@pytest.mark.parametrize("span", [2, 3, 6])
def test_the_mean_is_of_each_image(span: int):
    keys, values = scaled(KEYS, VALUES, 0.7, Scaling.MEAN, span)
    torch.testing.assert_close(keys, KEYS * 0.7 * P)
    for start in range(0, 6, span):
        image = VALUES[:, start : start + span]
        mean = image.mean(1, keepdim=True)
        torch.testing.assert_close(values[:, start : start + span], image - mean + mean * 0.7 * P)


@pytest.mark.parametrize("scaling", Scaling)
def test_a_weight_for_each_row_is_each_row_by_itself(scaling: Scaling):
    weights = torch.tensor([0.3, 1.4])[:, None, None]
    keys, values = scaled(KEYS, VALUES, weights, scaling, 3)
    for row, weight in enumerate((0.3, 1.4)):
        alone = scaled(KEYS[row : row + 1], VALUES[row : row + 1], weight, scaling, 3)
        torch.testing.assert_close(keys[row if len(keys) > 1 else 0][None], alone[0])
        torch.testing.assert_close(values[row][None], alone[1])
