"""Features of several pictures into one: the formula of each mode, one row, and embeds of both generations."""

import pytest
import torch
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.nodes.compat.arithmetic.combine_features import MODES, combine_features, concatenate
from image_prompt.nodes.compat.arithmetic.embeds import batch_embeds, combine_embeds, is_stacked

ROWS = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
A, B, C = ROWS
LENGTH = (A**2 + B**2 + C**2).sqrt()
FORMULAS = {
    "add": A + B + C,
    "subtract": A - (B + C) / 2,
    "average": (A + B + C) / 3,
    "norm average": (A + B + C) / LENGTH / 3,
    "max": torch.maximum(torch.maximum(A, B), C),
    "min": torch.minimum(torch.minimum(A, B), C),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("mode", FORMULAS)
def test_each_mode_is_its_formula(mode, exact):
    torch.testing.assert_close(combine_features(ROWS, mode, exact), FORMULAS[mode][None])


def test_concat_keeps_the_rows():
    assert combine_features(ROWS, "concat") is ROWS
    assert set(MODES) == {"concat", *FORMULAS}


@pytest.mark.parametrize("mode", MODES)
def test_one_row_stays_itself(mode):
    """Corrected by default: nothing is there to combine."""
    assert torch.equal(combine_features(ROWS[:1], mode), ROWS[:1])


def test_one_row_in_exact_legacy_results():
    assert combine_features(ROWS[:1], "subtract", exact=True).isnan().all()
    torch.testing.assert_close(combine_features(ROWS[:1], "norm average", exact=True), ROWS[:1].sign())


def test_a_coordinate_that_is_always_zero_stays_zero():
    """Corrected by default: norm average of the zeros that stand for 'no image' is no NaN."""
    zeros = torch.zeros(2, 6)
    assert torch.equal(combine_features(zeros, "norm average"), zeros[:1])
    assert combine_features(zeros, "norm average", exact=True).isnan().all()


def test_nan_that_came_is_not_hidden():
    assert combine_features(torch.full((2, 3), torch.nan), "average").isnan().all()


@pytest.mark.parametrize("mode", ["add", "average", "norm average", "max", "min"])
def test_the_order_of_rows_does_not_matter(mode):
    torch.testing.assert_close(combine_features(ROWS.flip(0), mode), combine_features(ROWS, mode))


def test_an_unknown_mode_and_unlike_parts_get_a_sentence():
    with pytest.raises(SettingError, match="multiply"):
        combine_features(ROWS, "multiply")
    with pytest.raises(MismatchError, match="same adapter"):
        concatenate([ROWS, ROWS[:, :2]])


# --- embeds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stacked"),
    [
        ((1, 1024), False),
        ((2, 1280), False),
        ((2, 3, 1024), True),
        ((2, 257, 1280), False),
        ((3, 257, 1280), False),
        ((2, 1, 257, 1280), True),
    ],
)
def test_embeds_of_the_first_generation_are_recognised_by_their_shape(shape, stacked):
    assert is_stacked(torch.zeros(shape)) is stacked


def test_stacked_embeds_combine_side_by_side():
    stacked = torch.stack((ROWS, 2 * ROWS))
    made = combine_embeds([stacked[:, :1], stacked[:, 1:]], "average")
    torch.testing.assert_close(made, stacked.mean(1, keepdim=True))


def test_stacked_and_plain_embeds_do_not_mix():
    with pytest.raises(MismatchError, match="same adapter"):
        combine_embeds([ROWS, torch.stack((ROWS, ROWS))], "concat")
    with pytest.raises(MismatchError, match="same adapter"):
        batch_embeds(torch.zeros(2, 1, 8), torch.zeros(1, 8))
    with pytest.raises(MismatchError, match="positive and a negative"):
        combine_embeds([torch.zeros(3, 1, 2, 2)] * 2, "concat")
