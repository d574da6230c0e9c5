"""Weights of blocks as text: what names what, and a sentence for each mistake."""

from dataclasses import replace

import pytest
from image_prompt.ipadapter_core.blocks import block_weights, labels_in_words, weights_in_words
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.families.site import Site
from image_prompt.ipadapter_core.weighting import site_weights

FLUX = [f"double {n}" for n in range(19)] + [f"single {n}" for n in range(38)]
UNET = ["input 4", "input 5", "input 7", "input 8", "middle", "output 0", "output 1"]


def of(text, labels=FLUX):
    return block_weights(text, labels, "the model")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \n,;", {}),
        ("double 3: 0.5", {"double 3": 0.5}),
        ("Double 03 : -1; single 37=2", {"double 3": -1.0, "single 37": 2.0}),
        ("double 3-5: 0.25", {f"double {n}": 0.25 for n in (3, 4, 5)}),
        ("double_3 to 4: 1", {"double 3": 1.0, "double 4": 1.0}),
        ("double: 0.1", {f"double {n}": 0.1 for n in range(19)}),
        ("double 17-18: 1\ndouble 18: 0", {"double 17": 1.0, "double 18": 0.0}),
    ],
)
def test_what_a_text_names(text, expected):
    assert of(text) == expected


def test_all_and_then_some():
    made = of("all: 0, single 10-37: 1")
    assert made == {label: float(label in FLUX[29:]) for label in FLUX}


def test_names_of_unets():
    assert of("input 4-8: 0.5, middle: 2", UNET) == dict.fromkeys(UNET[:4], 0.5) | {"middle": 2.0}


@pytest.mark.parametrize(
    "text", ["double 19: 1", "double 3-19: 1", "input 4: 1", "double 5-3: 1", "tripple: 1", "middle: 1"]
)
def test_blocks_that_are_not_there_are_refused_with_those_that_are(text):
    with pytest.raises(SettingError, match=r"the model has no attention block .*double 0-18, single 0-37"):
        of(text)


@pytest.mark.parametrize(
    "text", ["double", "3: 1", "double 3", "double 3: x", "double 3: nan", "double -1: 1", ": 1", "a" * 999]
)
def test_what_is_no_block_and_weight_is_refused(text):
    with pytest.raises(SettingError):
        of(text)


def test_in_words():
    assert labels_in_words(UNET) == ", ".join(UNET)
    assert labels_in_words(FLUX) == "double 0-18, single 0-37"
    weights = dict.fromkeys(FLUX, 1.0) | of("double 3: 0.5, single 30-37: 0")
    assert (
        weights_in_words(weights)
        == "double 0-2 1, double 3 0.5, double 4-18 1, single 0-29 1, single 30-37 0"
    )
    assert weights_in_words(dict.fromkeys(UNET[4:6], 0.5)) == "middle 0.5, output 0 0.5"


SITES = tuple(
    Site(label, label.split(" ")[0], n, 0, 16, 0, 2, architecture="Flux") for n, label in enumerate(FLUX)
)
XLABS = (*range(19), *[None] * 38)


def test_a_weight_where_the_adapter_does_not_act_is_refused_and_0_is_not():
    with pytest.raises(MismatchError, match=r"does not act in block 'single 0'.*0\.5.*double 0, double 1"):
        site_weights(SITES, 1.0, "linear", of("single: 0.5"), XLABS)
    weights = site_weights(SITES, 0.8, "linear", of("single: 0, double 2: 0.5"), XLABS)
    assert weights == (0.8, 0.8, 0.4, *[0.8] * 16, *[0.0] * 38)


EVERY = tuple(range(57))


def test_style_and_composition_of_instantx_are_single_blocks_and_share_none():
    style, layout = (
        site_weights(SITES, 1.0, kind, None, EVERY) for kind in ("style transfer", "composition")
    )
    both = site_weights(SITES, 1.0, "style and composition", None, EVERY)
    assert [n for n, weight in enumerate(style) if weight] == list(range(29, 57))
    assert [n for n, weight in enumerate(layout) if weight] == list(range(19, 29))
    assert both == tuple(a + b for a, b in zip(style, layout, strict=True))


@pytest.mark.parametrize("kind", ["style transfer", "composition", "style and composition"])
def test_nothing_is_claimed_for_xlabs_which_has_no_single_blocks(kind):
    with pytest.raises(MismatchError, match=r"in which the adapter does not act: it acts in double 0"):
        site_weights(SITES, 1.0, kind, None, XLABS)


def test_nothing_is_claimed_for_chroma():
    chroma = tuple(replace(site, architecture="Chroma") for site in SITES)
    with pytest.raises(MismatchError, match=r"is known for .*Flux\.1, not for Chroma"):
        site_weights(chroma, 1.0, "style transfer", None, EVERY)
    with pytest.raises(MismatchError, match=r"not for Flux\.1"):
        site_weights(SITES, 1.0, "strong style transfer", None, EVERY)
