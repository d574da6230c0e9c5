"""Regions as text: what is understood, what is refused, what is covered."""

from __future__ import annotations

import pytest
import torch
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.regions import (
    Box,
    DrawnRegion,
    Overlap,
    Stroke,
    parse_regions,
    region_masks,
)

HALVES = "box 0,0,0.5,1; box 0.5,0,0.5,1"


def masks(text: str, height: int = 64, width: int = 96, overlap: Overlap = Overlap.LATER) -> torch.Tensor:
    return region_masks(parse_regions(text), height, width, overlap)


def test_a_text_of_regions():
    text = "box 0,0,0.5,1 weight 0.8 soft 0.05;\n stroke 0.2 0.6,0.5 0.9,0.5 erase 0.05 0.7,0.4 ; weight 2;;"
    assert parse_regions(text) == (
        DrawnRegion((Box(0, 0, 0.5, 1),), 0.8, 0.05),
        DrawnRegion((Stroke(0.2, ((0.6, 0.5), (0.9, 0.5))), Stroke(0.05, ((0.7, 0.4),), erases=True))),
        DrawnRegion((), 2.0),
    )
    assert parse_regions(" ; \n") == ()


@pytest.mark.parametrize(
    "text",
    [
        "circle 0,0,1,1",
        "box",
        "box 0,0,1",
        "box 0,0,1,1,1",
        "box 0,0,0,1",
        "box 0,0,-0.5,1",
        "box 0,0,1e9,1",
        "box 0,0,nan,1",
        "box 0,0,x,1",
        "box 0,0,1,1 weight",
        "box 0,0,1,1 weight 11",
        "box 0,0,1,1 soft 1.5",
        "stroke 0.1",
        "stroke 0.1,0.2 0,0",
        "stroke 0.1 0,0 0.5",
        "stroke inf 0,0",
        "0.5 box 0,0,1,1",
    ],
)
def test_what_is_no_region_is_one_sentence_with_its_number(text: str):
    with pytest.raises(SettingError, match=r"^region 2 has '.*Write a region as 'box"):
        parse_regions(f"box 0,0,1,1; {text}")


def test_too_much_is_refused_before_it_is_drawn():
    with pytest.raises(SettingError, match="9 regions, more than 8"):
        parse_regions("box 0,0,1,1;" * 9)
    with pytest.raises(SettingError, match="2049 points, more than 2048"):
        parse_regions("stroke 1 " + "0,0 " * 2049)


def test_halves_are_halves_and_fill_the_picture():
    left, right = masks(HALVES)
    assert torch.equal(left[:, :48], torch.ones(64, 48))
    assert torch.equal(left + right, torch.ones(64, 96))


@pytest.mark.parametrize("overlap", [*Overlap])
def test_soft_edges_of_neighbours_add_up(overlap: Overlap):
    soft = HALVES.replace("1;", "1 soft 0.25;") + " soft 0.25"
    left, right = masks(soft, overlap=Overlap.ADDED)
    assert torch.allclose(left + right, torch.ones(64, 96))
    assert left[0, 0] == 1, "the picture's border is no edge"
    assert left[:, 48 - 8].min() > 0.9
    assert 0.4 < left[0, 48] < 0.6
    assert bool((left.diff(dim=1) <= 0).all())
    assert masks(soft, overlap=overlap).sum(0).max() <= 1 + 1e-6


def test_who_has_what_two_regions_cover():
    both = "box 0,0,0.75,1; box 0.25,0,0.75,1"
    shared_part = (..., slice(24, 72))
    assert [m.mean().item() for m in masks(both)[shared_part]] == [0, 1]
    assert [m.mean().item() for m in masks(both, overlap=Overlap.SHARED)[shared_part]] == [0.5, 0.5]
    assert [m.mean().item() for m in masks(both, overlap=Overlap.ADDED)[shared_part]] == [1, 1]


def test_a_stroke_is_as_wide_as_it_says_and_round_at_its_ends():
    (mask,) = masks("stroke 0.25 0.5,0.5")  # a dot of 16 pixels across, in 64 x 96
    assert mask.sum().item() == pytest.approx(torch.pi * 8**2, rel=0.02)
    assert mask[32, 48] == 1
    (line,) = masks("stroke 0.25 0.25,0.5 0.75,0.5")
    assert line[:, 48].sum().item() == pytest.approx(16, abs=0.1)
    assert line.sum().item() == pytest.approx(torch.pi * 8**2 + 16 * 48, rel=0.02)


def test_an_eraser_takes_away_what_stands_before_it_only():
    (mask,) = masks("box 0,0,1,1 erase 0.25 0.5,0.5")
    assert mask[32, 48] == 0
    assert mask[0, 0] == 1
    (again,) = masks("box 0,0,1,1 erase 0.25 0.5,0.5 box 0.4,0.4,0.2,0.2")
    assert again[32, 48] == 1


def test_a_stroke_beside_the_picture_covers_nothing():
    (mask,) = masks("stroke 0.1 -0.9,-0.9 -0.5,-0.9")
    assert mask.max() == 0


def test_large_pictures_get_masks_of_their_size():
    left, right = masks(HALVES, 1536, 3072)
    assert left.shape == (1536, 3072)
    assert torch.allclose(left + right, torch.ones(()))
    assert left[:, :1500].min() == 1


def test_no_region_is_no_mask():
    assert masks("").shape == (0, 64, 96)
