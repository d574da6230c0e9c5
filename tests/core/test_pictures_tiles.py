"""References in tiles, and the ClipVision Enhancer."""

from collections.abc import Iterable

import pytest
import torch
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.nodes.compat.arithmetic.enhance import (
    Enhancement,
    enhanced,
    merge_folded,
    merge_grids,
    merge_pooled,
    tiles,
)
from image_prompt.nodes.compat.arithmetic.masked_tiles import masked_tiles
from image_prompt.nodes.compat.arithmetic.resampling import resize_8bit
from image_prompt.nodes.compat.arithmetic.tiles import tiled
from torch import Tensor


def picture(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(height * width))


def boxes(masks: Iterable[Tensor]) -> list[tuple[int, ...]]:
    """(top, left, bottom, right) of what is white in each mask."""
    found = [mask.nonzero() for mask in masks]
    return [(*where.min(0).values.tolist(), *(where.max(0).values + 1).tolist()) for where in found]


# --- tiled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((64, 64), (512, 512), [(0, 0), (0, 256), (256, 0), (256, 256)]),
        ((64, 85), (512, 512), [(0, 0), (0, 256), (256, 0), (256, 256)]),
        ((64, 96), (256, 384), [(0, 0), (0, 128)]),
        ((75, 100), (256, 341), [(0, 0), (0, 85)]),
        ((64, 200), (256, 800), [(0, 0), (0, 181), (0, 362), (0, 544)]),
        ((300, 64), (1024, 256), [(0, 0), (256, 0), (512, 0), (768, 0)]),
    ],
)
def test_exact_geometry_is_the_de_facto_packs(size, canvas, expected):
    made, masks = tiled(picture(*size), exact=True)
    assert masks.shape == (len(expected), *canvas)
    assert boxes(masks) == [(y, x, y + 256, x + 256) for y, x in expected]
    assert made.shape == (len(expected), 256, 256, 3)


@pytest.mark.parametrize("size", [(64, 64), (64, 85), (64, 200), (300, 64), (80, 64)])
def test_tiles_show_the_whole_picture_and_their_masks_add_up(size):
    """Corrected by default: no part is cut away, and an overlap counts once."""
    image = picture(*size)
    made, masks = tiled(image)
    height, width = masks.shape[1:]
    assert height / width == pytest.approx(size[0] / size[1], rel=0.01)
    torch.testing.assert_close(masks.sum(0), torch.ones(height, width))
    assert {b - t for t, _, b, _ in boxes(masks)} == {256}
    whole = torch.zeros(height, width, 3)
    for tile, mask, (top, left, bottom, right) in zip(made, masks, boxes(masks), strict=True):
        whole[top:bottom, left:right] += tile * mask[top:bottom, left:right, None]
    resized = resize_8bit(image, height, width)
    torch.testing.assert_close(whole[None], resized)


def test_overlaps_count_twice_in_exact_legacy_results_only():
    image = picture(64, 96)
    assert tiled(image, exact=True)[1].sum(0).max() == 2
    assert tiled(image)[1].sum(0).max() == 1


def test_nearly_square_and_long_pictures_are_cut_in_exact_legacy_results_only():
    nearly, long = picture(64, 80), picture(64, 300)
    assert (len(tiled(nearly, exact=True)[0]), len(tiled(nearly)[0])) == (4, 6)
    assert (len(tiled(long, exact=True)[0]), len(tiled(long)[0])) == (4, 5)


def test_a_square_is_tiled_alike_either_way():
    image, mask = picture(64, 64, 2), torch.rand(3, 30, 40)
    for ours, theirs in zip(tiled(image, mask, 0.3), tiled(image, mask, 0.3, exact=True), strict=True):
        assert torch.equal(ours, theirs)


def test_each_tile_has_its_share_of_every_mask():
    mask = torch.zeros(2, 48, 48)
    mask[1, :, 24:] = 1
    made, masks = tiled(picture(64, 128, 3), mask)
    assert made.shape == (2 * 3, 256, 256, 3)  # tile 1 of the three pictures, then tile 2
    assert masks.shape == (2 * 2, 256, 512)  # tile 1 under both masks, then tile 2
    assert masks[0].abs().max() == 0
    assert masks[1, :, :235].abs().max() < 0.01
    assert masks[3, :, 300:].min() > 0.99


def test_a_mask_without_an_area_gets_a_sentence():
    with pytest.raises(MismatchError, match="mask"):
        tiled(picture(8, 8), torch.zeros(8))


# --- masked tiles of the first generation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((64, 64), 1, [(0, 0, 224, 224)]),
        ((64, 96), 1, [(0, 0, 224, 224), (0, 112, 224, 336)]),
        ((500, 300), 1, [(0, 0, 224, 224), (149, 0, 373, 224)]),
    ],
)
def test_masked_tiles_of_one_row_count_fully(size, short, expected):
    made, masks = masked_tiles(picture(*size), short, 0.6)
    assert boxes(masks) == expected
    assert max(mask.max() for mask in masks) == 1
    assert made.shape == (len(expected), 224, 224, 3)


def test_masked_tiles_of_several_rows_come_on_top_of_the_whole():
    made, masks = masked_tiles(picture(64, 64, 2), 2, 0.6)
    assert [mask.shape for mask in masks] == [(448, 448)] * 5
    assert boxes(masks)[1:] == [(y, x, y + 224, x + 224) for y in (0, 224) for x in (0, 224)]
    torch.testing.assert_close(masks[0], torch.ones(448, 448))
    assert {round(mask.max().item(), 4) for mask in masks[1:]} == {0.6}
    assert made.shape == (5, 224, 224, 3)


def test_a_small_rest_is_left_out_and_makes_tiles_longer_in_exact_legacy_results_only():
    image = picture(100, 110)  # 224 x 246: 22 pixels too many
    made, masks = masked_tiles(image, 1, 0.6)
    assert (boxes(masks), made.shape[2]) == ([(0, 11, 224, 235)], 224)
    made, masks = masked_tiles(image, 1, 0.6, exact=True)
    assert (boxes(masks), made.shape[2]) == ([(0, 11, 224, 246)], 235)
    assert masked_tiles(image, 2, 0.6, exact=True)[0].shape == (5, 224, 246, 3)


def test_masked_tiles_need_one_tile():
    with pytest.raises(SettingError, match="short_side_tiles"):
        masked_tiles(picture(8, 8), 0, 0.6)


# --- enhanced ----------------------------------------------------------------------------------------------------


def test_a_picture_is_cut_into_even_tiles_row_by_row():
    image = picture(7, 9, 2)
    made = tiles(image, 2)
    assert made.shape == (8, 3, 4, 3)
    assert torch.equal(made[1], image[0, :3, 4:8])
    assert torch.equal(made[6], image[1, 3:6, :4])
    with pytest.raises(MismatchError, match="tiles"):
        tiles(image, 8)


def test_grids_of_tiles_become_one_grid():
    states = torch.randn(2 * 4, 1 + 9, 5)  # two pictures, 2 x 2 tiles, 3 x 3 patches
    made = merge_grids(states, 2)
    parts = states.view(2, 4, 10, 5)
    torch.testing.assert_close(made[:, 0], parts[:, :, 0].mean(1))
    laid = torch.zeros(2, 6, 6, 5)
    for n in range(4):
        y, x = divmod(n, 2)
        laid[:, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3] = parts[:, n, 1:].view(2, 3, 3, 5)
    expected = torch.stack(
        [laid[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2)) for y in range(3) for x in range(3)], 1
    )
    torch.testing.assert_close(made[:, 1:], expected)


def test_pooled_vectors_are_averaged():
    """Corrected by default: the de-facto pack folds each vector to a square and pools it as if it were a picture."""
    vectors = torch.randn(3 * 4, 16)
    torch.testing.assert_close(merge_pooled(vectors, 2), vectors.view(3, 4, 16).mean(1))
    alike = vectors[:1].expand(4, -1)
    torch.testing.assert_close(merge_pooled(alike, 2), vectors[:1])
    folded = merge_folded(vectors[:4], 2)
    first = vectors[0].view(4, 4)
    torch.testing.assert_close(folded[0, 0], first[:2, :2].mean())
    assert not torch.allclose(folded, merge_pooled(vectors[:4], 2))
    with pytest.raises(MismatchError, match="square"):
        merge_folded(torch.randn(4, 15), 2)


def test_tokens_that_are_no_square_get_a_sentence():
    with pytest.raises(MismatchError, match="enhance_tiles"):
        merge_grids(torch.zeros(4, 16, 2), 2)


def mean_colour(images: Tensor) -> Tensor:
    """An encoder of pooled vectors."""
    return images.mean((1, 2))


def test_one_picture_gives_two_rows_and_several_are_mixed():
    image, how = picture(16, 16, 2), Enhancement(tiles=4, ratio=0.25)
    whole = mean_colour(image)  # tiles together have the same mean
    torch.testing.assert_close(enhanced(image, mean_colour, how), whole)
    rows = enhanced(image[:1], mean_colour, how)
    torch.testing.assert_close(rows, torch.cat((0.25 * whole[:1], whole[:1])))


def test_an_unfolded_picture_stays_one_row_but_in_exact_legacy_results():
    image, how = picture(16, 16), Enhancement(tiles=2, ratio=0.25)
    torch.testing.assert_close(enhanced(image, mean_colour, how, unfold=True), mean_colour(image))

    def grid(images: Tensor) -> Tensor:
        return mean_colour(images)[:, None].expand(-1, 5, -1)

    assert enhanced(image, grid, how, unfold=True).shape == (1, 5, 3)
    assert enhanced(image, grid, how, unfold=True, exact=True).shape == (2, 5, 3)


def test_one_tile_is_no_enhancement():
    image = picture(16, 16)
    assert torch.equal(enhanced(image, mean_colour, Enhancement(1, 0.5)), mean_colour(image))
