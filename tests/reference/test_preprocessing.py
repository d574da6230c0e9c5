"""Preprocessing against transformers' CLIPImageProcessor and against Pillow, which it was built on."""

import numpy as np
import pytest
import torch
from image_prompt.ipadapter_core.pictures.preprocessing import Fit, Position, pixel_values
from PIL import Image
from support.oracle import processed
from support.parity import max_error, mean_error
from torch import Tensor
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

SIZE = 224
ONE_LEVEL = 0.02  # one step of 8 bits, 0.015 after division by std
MEAN_LIMIT = 0.004
SIZES = {
    "square": (512, 512),
    "small square": (150, 150),
    "portrait": (640, 427),
    "wide": (300, 777),
    "a long side that does not divide": (333, 500),
}
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def smooth(height: int, width: int) -> Tensor:
    """Waves and a slope in three colours, in 8 bits: (1, H, W, 3) in 0..1."""
    y, x = torch.meshgrid(torch.arange(height) / 40, torch.arange(width) / 40, indexing="ij")
    planes = [torch.sin(x + n) * torch.cos(y * 0.7 - n) * 0.4 + 0.3 + 0.05 * n for n in range(3)]
    image = torch.stack(planes, dim=-1) + 0.2 * (torch.arange(width) / width)[:, None]
    return (image.clamp(0, 1) * 255).round()[None] / 255


def noise(height: int, width: int, low: int = 0, high: int = 255) -> Tensor:
    """Every pixel drawn by itself from the levels low..high."""
    generator = torch.Generator().manual_seed(height)
    return torch.randint(low, high + 1, (1, height, width, 3), generator=generator) / 255


def ours(image: Tensor, fit: Fit = Fit.CROP, position: Position = Position.CENTER) -> Tensor:
    return pixel_values(image, SIZE, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, fit, position)


def with_pillow(image: Tensor) -> Tensor:
    """Short side to SIZE, long side rounded down, centre crop: what transformers did before it had torchvision."""
    picture = Image.fromarray((image[0] * 255).round().byte().numpy())
    short = min(picture.size)
    width, height = (SIZE if side == short else int(SIZE * side / short) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    array = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)), dtype=np.float32) / 255
    values = (torch.from_numpy(array) - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    return values.movedim(-1, 0)[None]


ORACLES = {"transformers": lambda image: processed(image, SIZE), "Pillow": with_pillow}


@each_size
@pytest.mark.parametrize("oracle", ORACLES)
def test_a_smooth_picture_agrees_to_one_step_of_8_bits(size, oracle):
    image = smooth(*size)
    values, theirs = ours(image), ORACLES[oracle](image)
    assert max_error(values, theirs, f"smooth {size} {oracle}") <= ONE_LEVEL
    assert mean_error(values, theirs) <= MEAN_LIMIT


@each_size
@pytest.mark.parametrize("oracle", ORACLES)
def test_noise_that_does_not_overshoot_agrees_to_one_step_too(size, oracle):
    image = noise(*size, low=80, high=176)
    values, theirs = ours(image), ORACLES[oracle](image)
    assert max_error(values, theirs, f"mild noise {size} {oracle}") <= ONE_LEVEL
    assert mean_error(values, theirs) <= MEAN_LIMIT


@each_size
@pytest.mark.parametrize("oracle", ORACLES)
def test_full_noise_agrees_but_for_single_pixels(size, oracle):
    """Where the first pass overshoots black or white, they clip before the second pass, and we only at the end."""
    image = noise(*size)
    values, theirs = ours(image), ORACLES[oracle](image)
    max_error(values, theirs, f"full noise {size} {oracle}")
    assert mean_error(values, theirs) <= MEAN_LIMIT
    assert ((values - theirs).abs() > ONE_LEVEL).float().mean() < 0.02


def test_a_picture_of_the_encoders_size_is_only_normalised():
    image = noise(SIZE, SIZE)
    assert max_error(ours(image), processed(image, SIZE), "no resize") <= 1e-6


@pytest.mark.parametrize(
    ("size", "position", "part"),
    [
        ((300, 777), "left", (slice(None), slice(0, SIZE))),
        ((300, 777), "right", (slice(None), slice(-SIZE, None))),
        ((640, 427), "top", (slice(0, SIZE), slice(None))),
        ((640, 427), "bottom", (slice(-SIZE, None), slice(None))),
        (
            (640, 427),
            "left",
            (slice(55, 55 + SIZE), slice(None)),
        ),  # 335 rows: no choice on this side, so the middle
    ],
)
def test_crop_keeps_the_part_that_its_position_names(size, position, part):
    image = smooth(*size)
    whole = processed(image, SIZE, do_center_crop=False)
    theirs = whole[:, :, part[0], part[1]]
    assert max_error(ours(image, position=Position(position)), theirs, f"crop {position}") <= ONE_LEVEL


@each_size
def test_squash_is_a_resize_of_both_sides(size):
    image = smooth(*size)
    square = {"height": SIZE, "width": SIZE}
    theirs = processed(image, SIZE, resize=square, do_center_crop=False)
    assert max_error(ours(image, Fit.SQUASH), theirs, f"squash {size}") <= ONE_LEVEL


@pytest.mark.parametrize("size", [(640, 427), (300, 777)])
def test_pad_is_a_resize_of_the_long_side_in_the_mean_colour(size):
    image, long = smooth(*size), max(size)
    height, width = (SIZE * side // long for side in size)
    inside = processed(image, SIZE, resize={"height": height, "width": width}, do_center_crop=False)
    theirs = torch.zeros(1, 3, SIZE, SIZE)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    theirs[:, :, top : top + height, left : left + width] = inside
    assert max_error(ours(image, Fit.PAD), theirs, f"pad {size}") <= ONE_LEVEL
