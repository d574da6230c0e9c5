"""Meaning, not only numbers: in the trained toy world the generated picture takes the reference's content."""

import pytest
import torch
from image_prompt.lab.demo.gallery import WEIGHTS
from image_prompt.lab.demo.studio import Part, Scene, Studio
from image_prompt.lab.toy import world

HELD_OUT = 987_654
PICTURES = 16


@pytest.fixture(scope="module")
def studio():
    return Studio()


@pytest.fixture(scope="module")
def references():
    return world.render(world.make_scenes(PICTURES, HELD_OUT)).movedim(1, -1)


@pytest.fixture(scope="module")
def sweep(studio, references):
    """Pictures by weight: empty text, the same noise, one reference for each picture of the batch."""
    return {w: studio.make(Scene((Part(references, w),), pictures=PICTURES)) for w in WEIGHTS}


def test_the_likeness_grows_with_the_weight(studio, references, sweep):
    likeness = [studio.similarity(sweep[w], references).mean().item() for w in WEIGHTS]
    print("toy CLIP-I by weight:", {w: round(v, 3) for w, v in zip(WEIGHTS, likeness, strict=True)})
    assert likeness[0] < 0.45
    assert likeness[-1] > 0.75
    assert likeness == sorted(likeness)


def test_weight_zero_is_the_base_models_picture_bit_for_bit(studio, sweep):
    assert torch.equal(sweep[0.0], studio.make(Scene(pictures=PICTURES)))


def test_another_reference_is_not_what_comes_out(studio, references, sweep):
    own = studio.similarity(sweep[1.0], references)
    other = studio.similarity(sweep[1.0], references.roll(1, 0))
    assert (own > other).float().mean() > 0.9


def test_words_choose_the_shape_while_the_picture_gives_the_colours(studio, references):
    part = Part(references, 0.5)
    star, circle = (studio.make(Scene((part,), word, pictures=PICTURES)) for word in ("star", "circle"))
    bare = studio.make(Scene((), "star", pictures=PICTURES))
    assert (star - circle).abs().mean() > 0.02
    assert studio.similarity(star, references).mean() > studio.similarity(bare, references).mean() + 0.15


def test_each_half_follows_the_picture_of_its_region(studio, references):
    left = torch.zeros(1, 64, 128)
    left[..., :64] = 1
    for a, b in ((0, 1), (2, 3), (4, 5)):
        first, second = references[a : a + 1], references[b : b + 1]
        parts = (Part(first, 1.0, left), Part(second, 1.0, 1 - left))
        made = studio.make(Scene(parts, size=(8, 16)))
        halves = made[:, :, :64], made[:, :, 64:]
        assert studio.similarity(halves[0], first) > studio.similarity(halves[0], second)
        assert studio.similarity(halves[1], second) > studio.similarity(halves[1], first)


def silhouette(picture):
    """Where a picture (1, 64, 64, 3) differs from its own border, as booleans (64, 64)."""
    border = torch.cat([picture[0, 0], picture[0, -1], picture[0, :, 0], picture[0, :, -1]]).median(0).values
    distance = (picture[0] - border).norm(dim=-1)
    return distance > distance.quantile(0.97) / 2


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


def test_a_control_net_keeps_the_structure_while_the_reference_gives_the_look(studio, references):
    scenes = world.make_scenes(6, HELD_OUT + 1)
    hints = world.silhouettes(scenes).movedim(1, -1)
    kept, free = [], []
    for n in range(6):
        wanted = hints[n, :, :, 0] > 0.5
        part = Part(references[n : n + 1])
        kept.append(overlap(silhouette(studio.make(Scene((part,), hint=hints[n : n + 1]))), wanted))
        free.append(overlap(silhouette(studio.make(Scene((part,)))), wanted))
    print(
        "overlap with the silhouette:",
        round(sum(kept) / 6, 3),
        "without ControlNet:",
        round(sum(free) / 6, 3),
    )
    assert sum(kept) / 6 > 0.7
    assert sum(kept) > sum(free) + 0.6
