"""Noise pictures: the formula of each kind, the same noise for the same picture, and the global random state untouched."""

import pytest
import torch
import torch.nn.functional as F
from bootstrap import allow_torchvision
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.nodes.compat.arithmetic import noise
from image_prompt.nodes.compat.arithmetic.warp import elastic_transform, gaussian_blur

allow_torchvision()
SIZE = noise.SIZE


def picture(height=SIZE, width=SIZE, count=1):
    return torch.rand(
        count, height, width, 3, generator=torch.Generator().manual_seed(height + width + count)
    )


def drawn(image, *kinds):
    """The first numbers of a generator seeded from a picture's sum, uniform ('u') or normal ('n'), as it lies in memory."""
    generator = torch.Generator().manual_seed(int(image.sum()) % 1_000_000_007)
    draws = {
        "u": lambda: torch.empty_like(image).uniform_(generator=generator),
        "n": lambda: torch.empty_like(image).normal_(generator=generator),
    }
    return [draws[kind]() for kind in kinds]


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_fade(strength):
    image = picture()
    (uniform,) = drawn(image, "u")
    made = noise.make_noise("fade", strength, 0, image)
    torch.testing.assert_close(made, image * (1 - strength) + uniform * strength)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_dissolve(strength):
    image = picture()
    chosen, uniform = drawn(image, "u", "u")
    made = noise.make_noise("dissolve", strength, 0, image)
    torch.testing.assert_close(made, torch.where(chosen < strength, uniform, image))


def test_gaussian():
    image = picture()
    (normal,) = drawn(image, "n")
    torch.testing.assert_close(
        noise.make_noise("gaussian", 0.4, 0, image), (image + 0.4 * normal).clamp(0, 1)
    )


def test_shuffling_all_the_way_keeps_no_place_and_little_at_all():
    flat = torch.full((1, SIZE, SIZE, 3), 0.5)
    calm = noise.make_noise("shuffle", 0.0, 0, flat)
    assert torch.allclose(calm[:, 40:-40, 40:-40], flat[:, 40:-40, 40:-40], atol=1e-6)
    corner = torch.zeros(1, SIZE, SIZE, 3)
    corner[:, :100, :100] = 1
    turned = noise.make_noise("shuffle", 0.0, 0, corner)
    assert turned[:, 140:-15, 140:-15].mean() > 0.95
    assert turned[:, :100, :100].mean() < 0.05


@pytest.mark.parametrize("kind", noise.KINDS)
def test_the_same_picture_gives_the_same_noise_and_no_other_generator_changes(kind):
    image = picture(50, 81, 2)
    before = torch.get_rng_state()
    first = noise.make_noise(kind, 0.7, 3, image)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(noise.make_noise(kind, 0.7, 3, image), first)
    torch.set_rng_state(before)
    assert first.shape == (2, SIZE, SIZE, 3)
    assert 0 <= first.min() < first.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", noise.KINDS)
def test_without_a_picture_it_is_noise_over_black(kind):
    made = noise.make_noise(kind, 1.0)
    assert made.shape == (1, SIZE, SIZE, 3)
    assert made.std() > 0.2


def test_an_even_blur_is_one_larger():
    image = picture()
    assert torch.equal(noise.make_noise("fade", 0.5, 4, image), noise.make_noise("fade", 0.5, 5, image))
    sharp = noise.make_noise("fade", 0.5, 0, image)
    expected = gaussian_blur(sharp.movedim(-1, 1), 5).movedim(1, -1)
    torch.testing.assert_close(noise.make_noise("fade", 0.5, 5, image), expected)


def test_blur_is_a_gaussian_and_mirrors_the_border():
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 4] = 1
    made = gaussian_blur(image, 5, 1.2)
    near, far = made[0, 0, 4, 5] / made[0, 0, 4, 4], made[0, 0, 4, 6] / made[0, 0, 4, 4]
    torch.testing.assert_close(torch.stack((near, far)), torch.exp(-torch.tensor([1.0, 4.0]) / (2 * 1.2**2)))
    torch.testing.assert_close(made.sum(), torch.tensor(1.0))
    ramp = torch.arange(9.0).expand(1, 1, 9, 9).contiguous()
    line = torch.exp(-(torch.arange(-1.0, 2.0) ** 2) / (2 * 0.8**2))  # 0.15 · 3 + 0.35 = 0.8
    expected = (line * torch.tensor([1.0, 0.0, 1.0])).sum() / line.sum()
    torch.testing.assert_close(gaussian_blur(ramp, 3)[0, 0, 4, 0], expected)


def test_warping_fetches_each_pixel_from_its_place_plus_the_field():
    """Over a ramp, what is fetched is the place it is fetched from."""
    size, alpha = 32, 4.0
    ramp = torch.arange(float(size)).expand(1, 1, size, size).contiguous()
    made = elastic_transform(ramp, alpha, 0.0, torch.Generator().manual_seed(2))
    field = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    expected = ramp + field * alpha / size * (size / 2)  # grid_sample counts in halves of the picture
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(made[inside], expected[inside], atol=1e-4, rtol=0)


def test_noise_of_the_first_generation():
    image = picture(60, 40, 2)
    before = torch.get_rng_state()
    made = noise.first_generation_noise(image, 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made, noise.first_generation_noise(image, 0.5))
    assert made.shape == (2, SIZE, SIZE, 3)
    grain = noise.first_generation_noise(torch.zeros_like(image), 0.5)
    assert grain.std().item() == pytest.approx(0.25 * 0.5 + 0.05, rel=0.02)


def test_an_unknown_kind_gets_a_sentence():
    with pytest.raises(SettingError, match="salt"):
        noise.make_noise("salt", 1.0)
    assert F.mse_loss(noise.make_noise("fade", 1.0), noise.make_noise("dissolve", 1.0)) > 0.1


@pytest.mark.parametrize("size", [(1, 20), (20, 1), (1, 1), (2, 300)])
def test_noise_of_pictures_that_are_lines(size):
    image = torch.rand(1, *size, 3)
    for kind in noise.KINDS:
        for blur in (0, 1, 32):
            assert noise.make_noise(kind, 0.7, blur, image).isfinite().all()
    for strength in (0.01, 0.5, 1.0):
        assert noise.first_generation_noise(image, strength).isfinite().all()
