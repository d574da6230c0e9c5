"""Preprocessing of the older nodes: the square part, sizes in 8 bits, sharpening."""

import math

import pytest
import torch
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.nodes.compat.arithmetic import crop, prepare, resampling
from image_prompt.nodes.compat.arithmetic.sharpening import sharpen
from PIL import Image
from torch import Tensor


def picture(height: int, width: int, count: int = 1) -> Tensor:
    """Random colours, exact in 8 bits."""
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator) / 255


# --- crop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "position", "top", "left"),
    [
        ((4, 9), "center", 0, 2),
        ((4, 9), "left", 0, 0),
        ((4, 9), "right", 0, 5),
        ((4, 9), "top", 0, 2),
        ((9, 4), "center", 2, 0),
        ((9, 4), "top", 0, 0),
        ((9, 4), "bottom", 5, 0),
        ((9, 4), "left", 2, 0),
    ],
)
def test_a_square_is_cut_at_the_position_and_centred_across_it(size, position, top, left):
    image = picture(*size)
    assert torch.equal(crop.square(image, position), image[:, top : top + 4, left : left + 4])


@pytest.mark.parametrize(("size", "padded"), [((4, 8), (8, 8)), ((9, 4), (9, 8)), ((5, 5), (5, 5))])
def test_padding_is_black_and_shared(size, padded):
    image = picture(*size)
    made = crop.square(image, "pad")
    assert made.shape[1:3] == padded
    y, x = ((after - before) // 2 for before, after in zip(size, padded, strict=True))
    assert torch.equal(made[:, y : y + size[0], x : x + size[1]], image)
    assert (made != 0).sum() == (image != 0).sum()


def test_an_unknown_position_gets_a_sentence():
    with pytest.raises(SettingError, match="middle"):
        crop.square(picture(4, 4), "middle")


@pytest.mark.parametrize(("spare", "start"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_a_centred_box_rounds_halves_to_the_even_number(spare, start):
    line = torch.arange(10 + spare).float().view(1, 1, 1, -1)
    assert crop.centre_box(line, 1, 10)[..., 0].item() == start


# --- resizing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", resampling.FILTERS)
def test_pictures_are_resized_as_pillow_does_in_8_bits(name):
    image = picture(13, 21, count=2)
    made = resampling.resize_8bit(image, 8, 30, name)
    for one, out in zip(image, made, strict=True):
        eight = Image.fromarray((one * 255).round().to(torch.uint8).numpy())
        expected = torch.tensor(list(eight.resize((30, 8), Image.Resampling[name]).tobytes())).view(8, 30, 3)
        assert torch.equal((out * 255).round().long(), expected)


def test_8_bits_are_cut_and_values_outside_do_not_wrap():
    image = torch.tensor([-0.1, 0.9999, 1.2]).view(1, 1, 1, 3)
    assert torch.equal(
        resampling.resize_8bit(image, 1, 1) * 255, torch.tensor([0.0, 254.0, 255.0]).view(1, 1, 1, 3)
    )


def test_an_unknown_filter_gets_a_sentence():
    with pytest.raises(SettingError, match="cubic"):
        resampling.resize_8bit(picture(4, 4), 2, 2, "cubic")


# --- sharpening --------------------------------------------------------------------------------------------------


def sharp_pixel(window: Tensor, amount: float) -> float:
    """AMD's contrast adaptive sharpening of the middle of a 3 x 3 window, spelled out."""
    (a, b, c), (d, e, f), (g, h, i) = window.tolist()
    low = min(b, d, e, f, h) + min(a, c, g, i)
    high = max(b, d, e, f, h) + max(a, c, g, i)
    if high == 0:
        return 0.0
    room = math.sqrt(min(low, 2 - high) / high)
    lobe = -room * (amount * (1 / 5 - 1 / 8) + 1 / 8)
    return min(max((e + lobe * (b + d + f + h)) / (1 + 4 * lobe), 0.0), 1.0)


@pytest.mark.parametrize("amount", [0.3, 1.0])
def test_sharpening_of_every_pixel(amount):
    image = picture(5, 6)
    image[:, :3, :3] = 0
    made = sharpen(image, amount)
    framed = torch.nn.functional.pad(image, (0, 0, 1, 1, 1, 1))
    for y in range(5):
        for x in range(6):
            for c in range(3):
                expected = sharp_pixel(framed[0, y : y + 3, x : x + 3, c], amount)
                assert made[0, y, x, c].item() == pytest.approx(expected, abs=1e-5)


def test_no_sharpening_changes_nothing():
    image = picture(5, 6)
    assert sharpen(image, 0.0) is image


# --- together ----------------------------------------------------------------------------------------------------


def test_what_clip_vision_gets():
    image = picture(30, 50, count=2)
    made = prepare.for_clip_vision(image, "BOX", "right", 0.5)
    expected = sharpen(resampling.resize_8bit(image[:, :, 20:], 224, 224, "BOX"), 0.5)
    assert torch.equal(made, expected)


@pytest.mark.parametrize("pad_around", [True, False])
def test_what_insightface_gets(pad_around):
    image = picture(30, 50)
    made = prepare.for_insightface(image, "left", 0.5, pad_around)
    assert made.shape == (1, 640, 640, 3)
    side, start = (580, 30) if pad_around else (640, 0)
    inner = made[:, start : start + side, start : start + side]
    assert torch.equal(inner, sharpen(resampling.resize_8bit(image[:, :, :30], side, side), 0.5))
    assert made.max() <= 1
    if pad_around:
        assert (made[:, :30] == 1).all()
        assert (made[:, :, -30:] == 1).all()
