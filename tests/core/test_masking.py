"""Masks: what a user draws -> a weight for each query token of a site of any size."""

import pytest
import torch
from core.small import randn
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.families.unet import token_grid
from image_prompt.ipadapter_core.masking import Region, as_mask, token_weights

SIZES = [(8, 8), (1, 1), (7, 9), (13, 5), (3, 64), (127, 1), (96, 71)]
MASKS = [(64, 64), (63, 61), (512, 768), (5, 3), (1, 1)]


def soft(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("drawn", MASKS)
def test_a_mask_and_its_inverse_share_out_the_whole(size: tuple[int, int], drawn: tuple[int, int]):
    mask = soft(*drawn)
    both = token_weights(mask, *size) + token_weights(1 - mask, *size)
    torch.testing.assert_close(both, torch.ones(1, size[0] * size[1], 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_stay_so_exactly(size: tuple[int, int], value: float):
    assert token_weights(torch.full((1, 61, 45), value), *size).unique().tolist() == [value]


def test_a_token_weighs_what_is_white_of_the_area_it_covers():
    mask = torch.zeros(1, 8, 12)
    mask[0, :4, :4] = 1
    mask[0, 4:, 4] = 1
    mask[0, 7, 11] = 1
    assert token_weights(mask, 2, 3)[0, :, 0].tolist() == [1, 0, 0, 0, 1 / 4, 1 / 16]


def test_tokens_run_along_rows():
    mask = torch.zeros(2, 3, 5)
    mask[0, 1, 4] = mask[1, 2, 0] = 1
    assert token_weights(mask, 3, 5)[..., 0].argmax(1).tolist() == [1 * 5 + 4, 2 * 5 + 0]


@pytest.mark.parametrize("size", SIZES)
def test_weights_stay_between_0_and_1(size: tuple[int, int]):
    weights = token_weights(soft(50, 70, count=3), *size)
    assert weights.shape == (3, size[0] * size[1], 1)
    assert weights.min() >= 0
    assert weights.max() <= 1


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0.0, 2.0], [-1.0, 0.25]]),
        torch.tensor([[[0, 2], [-1, 0.25]]], dtype=torch.float64),
        torch.tensor([[[0, 2], [-1, 0.25]]], dtype=torch.float16),
    ],
    ids=["one, no batch", "float64", "float16"],
)
def test_what_users_connect_becomes_one_form(mask: torch.Tensor):
    made = as_mask(mask)
    assert made.dtype == torch.float32
    assert made.tolist() == [[[0, 1], [0, 0.25]]]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(1, 8, 8), "every pixel is 0"),
        (-torch.ones(1, 8, 8), "every pixel is 0"),
        (torch.ones(0, 8, 8), "(0, 8, 8)"),
        (torch.ones(1, 0, 8), "(1, 0, 8)"),
        (torch.ones(1, 8, 8, 4), "(1, 8, 8, 4)"),
        (torch.ones(2, 3, 8, 8), "(2, 3, 8, 8)"),
        (torch.ones(8), "(8,)"),
    ],
    ids=str,
)
def test_a_mask_that_cannot_work_is_refused(mask: torch.Tensor, words: str):
    with pytest.raises(MismatchError) as caught:
        as_mask(mask)
    assert words in str(caught.value)


def test_the_users_mask_is_not_changed():
    mask = randn(1, 4, 4)
    before = mask.clone()
    as_mask(mask)
    assert torch.equal(mask, before)


def halved(side: int, times: int) -> int:
    """A stride-2 convolution with padding 1 keeps (side + 1) // 2."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


def test_the_size_of_every_level_of_a_unet_is_found_for_odd_latents():
    for height in (8, 9, 13, 31, 64, 65, 67, 96, 101, 127, 128):
        for width in range(8, 140, 3):
            for level in range(4):
                size = halved(height, level), halved(width, level)
                assert token_grid(size[0] * size[1], height, width) == size, (height, width, level)


@pytest.mark.parametrize(
    ("latent", "size"),
    [
        ((64, 64), (45, 45)),
        ((64, 96), (45, 67)),
        ((96, 64), (67, 45)),
        ((128, 72), (90, 50)),
        ((50, 100), (35, 70)),
    ],
)
def test_a_rescaled_unet_gets_the_factors_nearest_the_pictures_aspect(
    latent: tuple[int, int], size: tuple[int, int]
):
    """As nodes do that shrink the first blocks: no level of the UNet has this many tokens."""
    assert token_grid(size[0] * size[1], *latent) == size


@pytest.mark.parametrize("tokens", [1, 2, 97, 1009])
def test_any_number_of_tokens_gets_a_size(tokens: int):
    height, width = token_grid(tokens, 64, 96)
    assert height * width == tokens


# --- as the de-facto pack reads masks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latent", "tokens", "size"),
    [((64, 64), 1024, (32, 32)), ((13, 23), 84, (6, 14)), ((45, 80), 60, (5, 12)), ((45, 80), 920, (23, 40))],
)
def test_its_sizes_follow_from_a_square_root(latent, tokens, size):
    region = Region(torch.ones(1, *latent), "bilinear", sqrt_grid=True)
    assert region.size(tokens, latent) == size
    assert Region(torch.ones(1, *latent)).size(tokens, latent) is None


@pytest.mark.parametrize("tokens", [20, 24, 31])
def test_where_its_sizes_miss_the_tokens_the_list_is_padded_or_cut(tokens):
    weights = Region(torch.ones(1, 8, 8), "bilinear", sqrt_grid=True).weights(4, 6, tokens)[0, :, 0]
    lacking = max(tokens - 24, 0)
    assert len(weights) == tokens
    assert weights.sum() == min(tokens, 24)
    assert weights[: lacking // 2].sum() == 0


def test_a_mask_read_at_its_centres_keeps_values_above_1():
    mask = torch.full((1, 16, 16), 2.0)
    assert torch.equal(Region(mask, "bilinear").weights(4, 4, 16), torch.full((1, 16, 1), 2.0))
