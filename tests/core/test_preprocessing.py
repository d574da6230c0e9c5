"""Preprocessing: fit, position, normalisation, masks, and the mean colour where no picture is."""

import pytest
import torch
import torch.nn.functional as F
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.pictures.preprocessing import Fit, Position, pixel_values
from torch import Tensor

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
# mean and std that change nothing
NO_CHANGE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def picture(height: int, width: int, count: int = 1, channels: int = 3) -> Tensor:
    """Random colours, exact in 8 bits."""
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, height, width, channels), generator=generator) / 255


def planes(images: Tensor) -> Tensor:
    return images[..., :3].movedim(-1, 1)


def test_pixels_are_normalised_channel_by_channel():
    image = picture(8, 8)
    expected = torch.stack([(image[..., n] - MEAN[n]) / STD[n] for n in range(3)], dim=1)
    torch.testing.assert_close(pixel_values(image, 8, MEAN, STD), expected, atol=1e-6, rtol=0)


def test_pixels_are_rounded_to_8_bits():
    image = torch.tensor([0.0, 0.5004, 0.4999, 1.2, -0.3, 1.0]).view(1, 2, 3, 1).expand(1, 2, 3, 3)
    values = pixel_values(image, 3, *NO_CHANGE, fit=Fit.PAD)
    assert (values[0, 0, :2] * 255).round(decimals=3).flatten().tolist() == [0, 128, 127, 255, 0, 255]


CROPS = {
    (8, 24): {"center": (0, 8), "left": (0, 0), "right": (0, 16), "top": (0, 8), "bottom": (0, 8)},
    (24, 8): {"center": (8, 0), "left": (8, 0), "right": (8, 0), "top": (0, 0), "bottom": (16, 0)},
    (8, 13): {"center": (0, 2), "left": (0, 0), "right": (0, 5), "top": (0, 2), "bottom": (0, 2)},
}


@pytest.mark.parametrize("size", CROPS, ids=str)
@pytest.mark.parametrize("position", Position)
def test_crop_keeps_the_named_part(size: tuple[int, int], position: Position):
    image = picture(*size)
    top, left = CROPS[size][position.value]
    values = pixel_values(image, 8, *NO_CHANGE, position=position)
    torch.testing.assert_close(values, planes(image)[..., top : top + 8, left : left + 8], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "top", "left"), [((4, 8), 2, 0), ((5, 8), 1, 0), ((8, 3), 0, 2), ((8, 8), 0, 0)], ids=str
)
def test_pad_centres_the_picture_in_exact_zeros(size: tuple[int, int], top: int, left: int):
    image, (height, width) = picture(*size), size
    values = pixel_values(image, 8, MEAN, STD, Fit.PAD)
    inside = (..., slice(top, top + height), slice(left, left + width))
    expected = torch.stack([(image[..., n] - MEAN[n]) / STD[n] for n in range(3)], dim=1)
    torch.testing.assert_close(values[inside], expected, atol=1e-6, rtol=0)
    values[inside] = 0
    assert torch.equal(values, torch.zeros(1, 3, 8, 8))


def test_squash_shows_the_whole_picture():
    image = torch.zeros(1, 16, 64, 3)
    image[:, :, 32:] = 1
    values = pixel_values(image, 16, *NO_CHANGE, fit=Fit.SQUASH)
    assert values[..., :6].max() == 0
    assert values[..., 10:].min() == 1


@pytest.mark.parametrize(
    "size", [(444, 666), (222, 777), (640, 427), (160, 345), (10, 305), (300, 300)], ids=str
)
def test_crop_scales_the_long_side_as_transformers_does(size: tuple[int, int]):
    image = picture(*size)
    short, long = sorted(size)
    target = [224 if side == short else int(224 * long / short) for side in size]
    resized = F.interpolate(planes(image), size=target, mode="bicubic", antialias=True)
    expected = (resized[..., :224, :224] * 255).round().clamp(0, 255) / 255
    position = Position.LEFT if size[1] > size[0] else Position.TOP
    values = pixel_values(image, 224, *NO_CHANGE, position=position)
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((186, 248), (252, 336)), ((336, 1), (336, 1)), ((1, 5000), (1, 336)), ((100, 150), (224, 336))],
)
def test_pad_scales_the_short_side_as_transformers_does(size: tuple[int, int], shown: tuple[int, int]):
    values = pixel_values(torch.ones(1, *size, 3), 336, *NO_CHANGE, fit=Fit.PAD)[0, 0]
    assert (int(values.any(1).sum()), int(values.any(0).sum())) == shown


@pytest.mark.parametrize("fit", Fit)
def test_alpha_is_dropped_and_grey_is_three_equal_channels(fit: Fit):
    rgba, grey = picture(12, 9, channels=4), picture(12, 9, channels=1)
    assert torch.equal(pixel_values(rgba, 8, MEAN, STD, fit), pixel_values(rgba[..., :3], 8, MEAN, STD, fit))
    assert torch.equal(
        pixel_values(grey, 8, MEAN, STD, fit), pixel_values(grey.expand(-1, -1, -1, 3), 8, MEAN, STD, fit)
    )


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("drawn", [(48, 96), (24, 48), (480, 960)], ids=str)
def test_a_mask_hides_its_black_part_exactly_and_keeps_its_white_part(fit: Fit, drawn: tuple[int, int]):
    image = picture(48, 96)
    mask = torch.zeros(1, *drawn)
    mask[..., drawn[1] // 2 :] = 1
    bare, masked = (pixel_values(image, 32, MEAN, STD, fit, mask=m) for m in (None, mask))
    assert torch.equal(masked[..., :12], torch.zeros_like(masked[..., :12]))
    torch.testing.assert_close(masked[..., 20:], bare[..., 20:], atol=2e-5, rtol=0)


@pytest.mark.parametrize("fit", Fit)
def test_the_edge_of_a_mask_never_strengthens_a_pixel(fit: Fit):
    """Resampling a hard edge overshoots; the mask may not."""
    image, mask = torch.ones(1, 48, 96, 3), torch.zeros(1, 48, 96)
    mask[..., 40:] = 1
    bare, masked = (pixel_values(image, 32, MEAN, STD, fit, mask=m) for m in (None, mask))
    assert masked.min() >= 0
    assert (masked <= bare + 1e-6).all()


@pytest.mark.parametrize("fit", Fit)
def test_a_white_mask_is_no_mask(fit: Fit):
    image = picture(30, 47)
    bare = pixel_values(image, 16, MEAN, STD, fit)
    torch.testing.assert_close(pixel_values(image, 16, MEAN, STD, fit, mask=torch.ones(20, 20)), bare)


def test_each_picture_may_have_its_own_mask():
    images = picture(16, 16, count=2)
    masks = torch.stack((torch.ones(16, 16), torch.zeros(16, 16)))
    values = pixel_values(images, 8, MEAN, STD, mask=masks)
    torch.testing.assert_close(values[:1], pixel_values(images[:1], 8, MEAN, STD))
    assert torch.equal(values[1], torch.zeros(3, 8, 8))


@pytest.mark.parametrize("fit", Fit)
def test_each_picture_is_preprocessed_by_itself(fit: Fit):
    images = picture(20, 33, count=3)
    alone = torch.cat([pixel_values(one[None], 16, MEAN, STD, fit) for one in images])
    assert torch.equal(pixel_values(images, 16, MEAN, STD, fit), alone)


def test_the_users_picture_is_not_changed():
    image = picture(8, 8)
    before = image.clone()
    pixel_values(image, 8, MEAN, STD, mask=torch.zeros(8, 8))
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        ((8, 8, 3), None, ("(8, 8, 3)", "(batch, height, width, c)")),
        ((1, 8, 8, 2), None, ("(1, 8, 8, 2)", "1, 3 or 4 channels")),
        ((1, 3, 8, 8), None, ("(1, 3, 8, 8)", "1, 3 or 4 channels")),
        ((0, 8, 8, 3), None, ("(0, 8, 8, 3)",)),
        ((1, 0, 8, 3), None, ("(1, 0, 8, 3)",)),
        ((3, 8, 8, 3), (2, 8, 8), ("2 reference masks", "3 images", "one for each")),
        ((1, 8, 8, 3), (1, 2, 8, 3), ("reference mask", "(1, 2, 8, 3)")),
        ((1, 8, 8, 3), (1, 0, 8), ("reference mask", "(1, 0, 8)")),
    ],
    ids=str,
)
def test_wrong_shapes_are_refused_with_what_came_and_what_is_allowed(
    image: tuple[int, ...], mask: tuple[int, ...] | None, words: tuple[str, ...]
):
    with pytest.raises(MismatchError) as caught:
        pixel_values(torch.zeros(image), 8, MEAN, STD, mask=None if mask is None else torch.zeros(mask))
    assert all(word in str(caught.value) for word in words), str(caught.value)
